import Bytes

/// The one folder in the ZIP archive that `torch.save` writes.
struct TorchFolder {
  /// Versions of the archive that are read: 3 is written.
  private static let versions = 1...10

  let pickle: ZipArchive.Entry
  private let zip: ZipArchive
  /// With the `/`.
  private let prefix: String

  init(_ zip: ZipArchive) throws(Failure) {
    self.zip = zip
    let found = zip.entries.filter { $0.name.hasSuffix("/data.pkl") && $0.name.utf8.count { $0 == 0x2F } == 1 }
    guard let first = found.first else {
      throw Failure(
        .unsupported, "is a ZIP archive without a 'data.pkl' in its one folder: not what torch.save writes")
    }
    guard found.count == 1 else {
      throw Failure(
        .malformed,
        "has two pickles, '\(first.name.printable(limit: 256))' and '\(found[1].name.printable(limit: 256))'")
    }
    pickle = first
    prefix = String(first.name.dropLast("data.pkl".count))
    if zip.entries.contains(where: { Self.isScript($0.name.dropFirst(prefix.count)) && $0.name.hasPrefix(prefix) }) {
      throw Failure(
        .unsupported,
        "is a TorchScript archive, made by torch.jit.save: save its weights with "
          + "torch.save(torch.jit.load(FILE).state_dict(), …)")
    }
    // The code of TorchScript is compressed: so this comes after that.
    for entry in zip.entries { try zip.checkStored(entry) }
    try checkVersion()
    try checkByteOrder()
    try zip.checkCRC(pickle)
  }

  private static func isScript(_ name: Substring) -> Bool { name == "constants.pkl" || name.hasPrefix("code/") }

  /// The text of a short entry; nil when there is none.
  private func text(_ name: String) throws(Failure) -> String? {
    guard let entry = zip.entry(prefix + name) else { return nil }
    let text = String(decoding: try zip.contents(entry, limit: 64), as: UTF8.self)
    return text.split(whereSeparator: \.isWhitespace).joined(separator: " ")
  }

  private func checkVersion() throws(Failure) {
    var found = try text("version")
    if found == nil { found = try text(".data/version") }
    guard let text = found else {
      throw Failure(.malformed, "has no entry 'version', which torch.save writes")
    }
    guard let version = Int(text), Self.versions.contains(version) else {
      throw Failure(.unsupported, "has the version '\(text.printable(limit: 64))' of PyTorch's archive, known is 3")
    }
  }

  private func checkByteOrder() throws(Failure) {
    let order = try text("byteorder") ?? "little"
    switch order {
    case "little": return
    case "big":
      throw Failure(
        .unsupported, "was saved on a big-endian machine; load and save it again with PyTorch on a little-endian one")
    default: throw Failure(.malformed, "has the byte order '\(order.printable(limit: 64))', known are little and big")
    }
  }

  /// The storages with the places of their data, an entry each.
  func placed(_ storages: PyTorchStorages, in slice: FileSlice) throws(Failure) -> PyTorchStorages {
    var storages = storages
    for (position, storage) in storages.list.enumerated() where !storage.isMeta {
      guard let entry = zip.entry("\(prefix)data/\(storage.key)") else {
        throw Failure(.malformed, "storage \(storage.key) has no entry 'data/\(storage.key)' in the archive")
      }
      guard entry.range.count == storage.byteCount else {
        throw Failure(
          .malformed,
          "storage \(storage.key) has \(storage.byteCount) bytes by the pickle, its entry has \(entry.range.count)",
          offset: slice.offset + entry.range.lowerBound)
      }
      storages.place(position, at: slice.offset + entry.range.lowerBound)
    }
    return storages
  }
}
