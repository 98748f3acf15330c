public import Bytes

/// A ZIP archive: a file, or a part of one. Of entries that are compressed, nothing is read.
///
/// An archive that exists has one reading: its directory ends where the file does and describes every entry as the entry
/// itself does, entries do not overlap, and no name occurs twice. Opening reads no entry's data.
public struct ZipArchive: Sendable {
  public static let entryLimit = 1_000_000
  /// Bytes of the directory.
  public static let directoryLimit = 256 << 20

  /// Data under a name.
  public struct Entry: Sendable {
    public let name: String
    /// Where its data is, counted from the beginning of the archive.
    public let range: Range<Int>
    /// The checksum of its data; nil when there is none.
    public let crc: UInt32?
    /// How it is compressed; 0 when it is not.
    public let method: UInt16
  }

  public let slice: FileSlice
  /// In the order of their data.
  public let entries: [Entry]
  private let order: KeyOrder

  public init(_ slice: FileSlice) throws(Failure) {
    var parser = ZipParser(slice)
    do throws(Failure) {
      try parser.parse()
    } catch { throw error.located(file: slice.file.name) }
    self.slice = slice
    entries = parser.entries
    order = parser.order
  }

  public func entry(_ name: String) -> Entry? {
    order.position(of: name) { entries[$0].name }.map { entries[$0] }
  }

  /// The data of an entry, its checksum compared.
  public func contents(_ entry: Entry, limit: Int) throws(Failure) -> [UInt8] {
    guard entry.range.count <= limit else {
      throw Failure(
        .malformed, "the entry '\(entry.name)' has \(entry.range.count) bytes, allowed are \(limit)",
        file: slice.file.name, offset: slice.offset + entry.range.lowerBound)
    }
    try checkStored(entry)
    try checkCRC(entry)
    return try slice.bytes(in: entry.range)
  }

  /// Reads an entry's data and compares its checksum, when it has one.
  ///
  /// - Throws: `malformed` when it is another.
  public func checkCRC(_ entry: Entry) throws(Failure) {
    guard let expected = entry.crc else { return }
    var crc = CRC32()
    var position = entry.range.lowerBound
    while position < entry.range.upperBound {
      let end = min(position + 1 << 20, entry.range.upperBound)
      crc.update(try slice.bytes(in: position..<end))
      position = end
    }
    guard crc.value == expected else {
      let (found, wanted) = (String(crc.value, radix: 16), String(expected, radix: 16))
      throw Failure(
        .malformed, "the entry '\(entry.name)' is damaged: its checksum is \(found), expected \(wanted)",
        file: slice.file.name, offset: slice.offset + entry.range.lowerBound)
    }
  }

  /// - Throws: `unsupported` when an entry is compressed.
  func checkStored(_ entry: Entry) throws(Failure) {
    guard entry.method != 0 else { return }
    throw Failure(
      .unsupported,
      "the ZIP archive's entry '\(entry.name.printable(limit: 256))' is compressed (method \(entry.method)), PyTorch "
        + "stores them as they are", file: slice.file.name, offset: slice.offset + entry.range.lowerBound)
  }

  /// The part of the file that an entry's data is.
  func slice(of entry: Entry) throws(Failure) -> FileSlice {
    try checkStored(entry)
    return try FileSlice(slice.file, offset: slice.offset + entry.range.lowerBound, length: entry.range.count)
  }
}
