import Bytes

/// An entry as the directory of a ZIP archive describes it.
struct ZipRecord {
  private static let signature: [UInt8] = [0x50, 0x4B, 0x01, 0x02]
  private static let length = 46
  private static let localSignature: [UInt8] = [0x50, 0x4B, 0x03, 0x04]
  private static let localLength = 30
  /// Sizes and checksum stand behind the data instead of before it.
  private static let hasDescriptor: UInt16 = 0x0008
  /// Besides that, names in UTF-8, and hints to a method that is not used.
  private static let knownFlags: UInt16 = 0x0808 | 0x0006

  let name: String
  private let nameBytes: [UInt8]
  private let flags: UInt16
  /// 0 for data that are stored as they are.
  let method: UInt16
  private let storedCRC: UInt32
  /// Bytes of the data when they are no longer compressed.
  private let fullSize: Int
  /// Bytes in the archive.
  let size: Int
  /// Of what stands before the data.
  let localOffset: Int

  /// Of data as they are stored; nil when none was computed, which is written as 0.
  var crc: UInt32? { method != 0 || storedCRC == 0 && size > 0 ? nil : storedCRC }

  /// - Parameter position: in the directory; moved behind the record.
  init(_ bytes: [UInt8], at position: inout Int) throws(Failure) {
    guard bytes.count - position >= Self.length, bytes.starts(with: Self.signature, at: position) else {
      throw Failure(.malformed, "the ZIP archive's directory has no entry where one should be")
    }
    let start = position
    func short(_ offset: Int) -> UInt16 { bytes.little(UInt16.self, at: start + offset) }
    func long(_ offset: Int) -> UInt32 { bytes.little(UInt32.self, at: start + offset) }
    let (nameLength, extraLength, commentLength) = (Int(short(28)), Int(short(30)), Int(short(32)))
    guard nameLength + extraLength + commentLength <= bytes.count - start - Self.length else {
      throw Failure(.malformed, "the ZIP archive's directory ends inside an entry")
    }
    let nameStart = start + Self.length
    nameBytes = Array(bytes[nameStart..<nameStart + nameLength])
    guard let name = String(validating: nameBytes, as: UTF8.self), Self.isHarmless(name) else {
      let shown = String(decoding: nameBytes, as: UTF8.self).printable(limit: 256)
      throw Failure(.malformed, "the ZIP archive has an entry of the name '\(shown)', which is no path inside it")
    }
    self.name = name
    flags = short(8)
    method = short(10)
    try Self.check(flags: flags, name)
    storedCRC = long(16)
    let extra = nameStart + nameLength
    let sizes = try Self.sizes(
      size: long(24), compressed: long(20), offset: long(42), extra: Array(bytes[extra..<extra + extraLength]), name)
    guard method != 0 || sizes.size == sizes.compressed else {
      throw Failure(
        .malformed, "the ZIP archive's entry '\(name)' has \(sizes.compressed) bytes for \(sizes.size), and is stored")
    }
    guard short(34) == 0 else {
      throw Failure(.unsupported, "is one of several parts of a ZIP archive; put them together first")
    }
    size = sizes.compressed
    fullSize = sizes.size
    localOffset = sizes.offset
    position = extra + extraLength + commentLength
  }

  private static func check(flags: UInt16, _ name: String) throws(Failure) {
    guard flags & ~knownFlags == 0 else {
      let isEncrypted = flags & 0x2041 != 0
      throw Failure(
        .unsupported,
        "the ZIP archive's entry '\(name.printable(limit: 256))' "
          + "\(isEncrypted ? "is encrypted" : "has the flags 0x\(String(flags, radix: 16))"), "
          + "which no file of PyTorch is or has")
    }
  }

  /// Relative, without a way out.
  private static func isHarmless(_ name: String) -> Bool {
    var parts = name.split(separator: "/", omittingEmptySubsequences: false)
    if parts.last == "", parts.count > 1 { parts.removeLast() }  // A folder.
    return parts.allSatisfy { part in
      !part.isEmpty && part != "." && part != ".." && !part.utf8.contains { $0 == 0 || $0 == UInt8(ascii: "\\") }
    }
  }

  // MARK: - Sizes of 64 bits

  /// Those that are 2³²-1 stand in an extra field of the number 1, in this order and only they.
  private static func sizes(
    size: UInt32, compressed: UInt32, offset: UInt32, extra: [UInt8], _ name: String
  ) throws(Failure) -> (size: Int, compressed: Int, offset: Int) {
    var field = try field64(extra, name)
    func value(_ short: UInt32) throws(Failure) -> Int {
      guard short == .max else { return Int(short) }
      guard field.count >= 8, let value = Int(exactly: field.prefix(8).map(\.self).little(UInt64.self, at: 0)) else {
        throw Failure(.malformed, "the ZIP archive's entry '\(name.printable(limit: 256))' lacks a size of 64 bits")
      }
      field = field.dropFirst(8)
      return value
    }
    let values = (size: try value(size), compressed: try value(compressed), offset: try value(offset))
    guard field.isEmpty else {
      throw Failure(
        .malformed, "the ZIP archive's entry '\(name.printable(limit: 256))' has a size of 64 bits and one of 32")
    }
    return values
  }

  /// The content of the extra field of the number 1; empty when there is none.
  private static func field64(_ extra: [UInt8], _ name: String) throws(Failure) -> ArraySlice<UInt8> {
    var found: ArraySlice<UInt8>?
    var position = 0
    while extra.count - position >= 4 {
      let (id, length) = (extra.little(UInt16.self, at: position), Int(extra.little(UInt16.self, at: position + 2)))
      guard length <= extra.count - position - 4, id != 1 || found == nil else {
        throw Failure(.malformed, "the ZIP archive's entry '\(name.printable(limit: 256))' has broken extra fields")
      }
      if id == 1 { found = extra[position + 4..<position + 4 + length] }
      position += 4 + length
    }
    return found ?? []
  }

  // MARK: - What stands before the data

  /// Where the data begins.
  ///
  /// - Parameter limit: where the next entry begins, or the directory.
  /// - Throws: `malformed` when what stands there describes another entry than the directory does.
  func dataStart(in slice: FileSlice, limit: Int) throws(Failure) -> Int {
    guard Self.localLength + nameBytes.count <= limit - localOffset else {
      throw Failure(.malformed, "is said to begin where there is no room for it")
    }
    let local = try slice.bytes(in: localOffset..<localOffset + Self.localLength + nameBytes.count)
    guard local.starts(with: Self.localSignature, at: 0) else {
      throw Failure(.malformed, "is said to begin where no entry does")
    }
    let nameLength = Int(local.little(UInt16.self, at: 26))
    guard nameLength == nameBytes.count, local.starts(with: nameBytes, at: Self.localLength) else {
      throw Failure(.malformed, "has another name there than in the directory")
    }
    guard local.little(UInt16.self, at: 6) == flags, local.little(UInt16.self, at: 8) == method else {
      throw Failure(.malformed, "has another method or other flags there than in the directory")
    }
    let follows = flags & Self.hasDescriptor != 0
    let crc = local.little(UInt32.self, at: 14)
    func isSame(_ local: UInt32, as size: Int) -> Bool {
      local == .max ? size > 0xFFFF_FFFE || follows : Int(local) == size || follows && local == 0
    }
    let isSame =
      isSame(local.little(UInt32.self, at: 18), as: size) && isSame(local.little(UInt32.self, at: 22), as: fullSize)
    guard crc == storedCRC || follows && crc == 0, isSame else {
      throw Failure(.malformed, "has another size or checksum there than in the directory")
    }
    let start = localOffset + Self.localLength + nameLength + Int(local.little(UInt16.self, at: 28))
    guard start <= limit else {
      throw Failure(.malformed, "has fields before its data that reach into what follows it")
    }
    return start
  }
}
