package import Bytes
import JSON
package import Tensors

/// `nibble-manifest.json`, read back.
///
/// `files` has those in folders of the directory too, by paths with `/`.
///
/// An entry of `tensors` is
/// `"NAME": {"file": "F", "offset": O, "bytes": N, "xxh3": "HEX", "pieces": {"bytes": P, "xxh3": "HEX…"}}`: the
/// tensor's N bytes begin at byte O of the file F. `pieces`, which a tensor of at most 1 MiB goes without, has the
/// XXH3 of every P consecutive bytes of the tensor, of the shorter rest too, 16 digits each, one after the other.
/// Manifests without it were written before it was thought of and are as good.
package struct Manifest: Sendable {
  package struct File: Sendable {
    package var name: String
    package var size: Int
    package var xxh128: XXH128Digest
    package var sha256: String?
  }

  package struct Tensor: Sendable {
    package var name: TensorName
    /// Position in `files`.
    package var file: Int
    package var offset: Int
    package var byteCount: Int
    package var xxh3: XXH3Digest
    package var pieces: PieceDigests?
  }

  package private(set) var files: [File] = []
  package private(set) var tensors: [Tensor] = []

  package static let fileName = "nibble-manifest.json"
  package static let checksumsName = ChecksumList.name

  package static let sizeLimit = 1 << 30

  /// - Throws: `malformed` for anything but the whole of what Nibble writes; an empty manifest too, since
  ///   it would vouch for nothing.
  package init(_ file: InputFile) throws(Failure) {
    do throws(Failure) {
      try parse(try file.contents(limit: Self.sizeLimit))
    } catch { throw error.located(file: file.name) }
  }

  private mutating func parse(_ bytes: [UInt8]) throws(Failure) {
    var reader = JSONReader(bytes)
    var seen: Set<String> = []
    var fileNumbers: [String: Int] = [:]
    var pending: [(tensor: Tensor, file: String)] = []
    try reader.enterObject()
    while let (key, offset) = try reader.nextMember() {
      guard seen.insert(key).inserted else { throw Failure(.malformed, "key '\(key)' occurs twice", offset: offset) }
      switch key {
      case "format":
        guard try reader.string() == "nibble-manifest" else {
          throw Failure(.malformed, "is not a manifest of Nibble", offset: offset)
        }
      case "version":
        let version = try reader.wholeNumber("version")
        guard version == 1 else {
          throw Failure(.unsupported, "is a manifest of version \(version), known is 1", offset: offset)
        }
      case "files": try parseFiles(&reader, &fileNumbers)
      case "tensors": try parseTensors(&reader, &pending)
      case "resources": try parseResources(&reader, fileNumbers)
      default: try reader.skipValue()
      }
    }
    try reader.finish()
    guard seen.isSuperset(of: ["format", "version", "files", "tensors"]) else {
      throw Failure(.malformed, "has no 'format', 'version', 'files' or 'tensors'")
    }
    guard !files.isEmpty else { throw Failure(.malformed, "lists no file") }
    tensors.reserveCapacity(pending.count)
    for (tensor, file) in pending {
      guard let number = fileNumbers[file] else {
        throw Failure(.malformed, "its file '\(file)' is not listed", tensor: tensor.name.string)
      }
      var tensor = tensor
      tensor.file = number
      let (end, overflow) = tensor.offset.addingReportingOverflow(tensor.byteCount)
      guard !overflow, end <= files[number].size else {
        throw Failure(
          .malformed, "lies beyond the \(files[number].size) bytes of '\(file)'", tensor: tensor.name.string)
      }
      tensors.append(tensor)
    }
  }

  private mutating func parseFiles(_ reader: inout JSONReader, _ numbers: inout [String: Int]) throws(Failure) {
    try reader.enterObject()
    while let (name, offset) = try reader.nextMember() {
      guard InputDirectory.isPlainPath(name), name != Manifest.fileName, name != Manifest.checksumsName
      else {
        throw Failure(.malformed, "'\(name)' cannot be a file of the checkpoint", offset: offset)
      }
      guard numbers.updateValue(files.count, forKey: name) == nil else {
        throw Failure(.malformed, "the file '\(name)' is listed twice", offset: offset)
      }
      let entry = try reader.object()
      guard entry.count == 2, let size = entry["size"]?.int, size >= 0,
        let digest = entry["xxh128"]?.string.flatMap({ XXH128Digest(hexadecimal: $0) })
      else { throw Failure(.malformed, "the entry of '\(name)' needs 'size' and 'xxh128' (32 digits)", offset: offset) }
      files.append(File(name: name, size: size, xxh128: digest))
    }
  }

  private mutating func parseTensors(
    _ reader: inout JSONReader, _ pending: inout [(tensor: Tensor, file: String)]
  ) throws(Failure) {
    var names: Set<TensorName> = []
    try reader.enterObject()
    while let (name, offset) = try reader.nextMember() {
      guard names.insert(TensorName(name)).inserted else {
        throw Failure(.malformed, "is listed twice", tensor: name, offset: offset)
      }
      let entry = try reader.object()
      let pieces = entry["pieces"]
      guard entry.count == (pieces == nil ? 4 : 5), let file = entry["file"]?.string,
        let start = entry["offset"]?.int, start >= 0, let count = entry["bytes"]?.int, count >= 0,
        let digest = entry["xxh3"]?.string.flatMap({ XXH3Digest(hexadecimal: $0) })
      else {
        throw Failure(
          .malformed, "needs 'file', 'offset', 'bytes' and 'xxh3' (16 digits)", tensor: name, offset: offset)
      }
      var tensor = Tensor(name: TensorName(name), file: 0, offset: start, byteCount: count, xxh3: digest)
      if let pieces {
        guard let digests = Self.pieces(pieces, of: count) else {
          throw Failure(
            .malformed, "'pieces' needs 'bytes' above 0 and 'xxh3' (16 digits for each piece of its \(count) bytes)",
            tensor: name, offset: offset)
        }
        tensor.pieces = digests
      }
      pending.append((tensor, file))
    }
  }

  /// Pieces of any size: that of the day is for the writer to choose.
  private static func pieces(_ value: JSONValue, of byteCount: Int) -> PieceDigests? {
    guard let entry = value.object, entry.count == 2, let size = entry["bytes"]?.int,
      let layout = PieceLayout(byteCount: byteCount, pieceByteCount: size), let digits = entry["xxh3"]?.string
    else { return nil }
    return PieceDigests(layout, hexadecimal: digits)
  }

  private mutating func parseResources(_ reader: inout JSONReader, _ numbers: [String: Int]) throws(Failure) {
    try reader.enterArray()
    while try reader.nextElement() {
      let offset = reader.offset
      let entry = try reader.object()
      guard let name = entry["name"]?.string, let number = numbers[name], entry["algorithm"]?.string == "sha256",
        let digest = entry["digest"]?.string, digest.utf8.count == 64, files[number].sha256 == nil
      else {
        throw Failure(
          .malformed, "a resource needs 'name', 'algorithm' sha256 and 'digest' (64 digits)", offset: offset)
      }
      files[number].sha256 = digest
    }
  }
}
