import Bytes

/// Reads the directory of a ZIP archive from the end of the file, and compares it with what stands before each entry.
struct ZipParser {
  private static let endSignature: [UInt8] = [0x50, 0x4B, 0x05, 0x06]
  private static let endLength = 22
  private static let locatorSignature: [UInt8] = [0x50, 0x4B, 0x06, 0x07]
  private static let locatorLength = 20
  private static let end64Signature: [UInt8] = [0x50, 0x4B, 0x06, 0x06]
  private static let end64Length = 56

  private(set) var entries: [ZipArchive.Entry] = []
  private(set) var order = KeyOrder([])
  private let slice: FileSlice

  init(_ slice: FileSlice) { self.slice = slice }

  mutating func parse() throws(Failure) {
    let directory = try findDirectory()
    let bytes = try slice.bytes(in: directory.range)
    var records: [ZipRecord] = []
    var position = 0
    while position < bytes.count {
      guard records.count < directory.count else {
        throw Failure(
          .malformed, "the ZIP archive's directory has more than the \(directory.count) entries that it declares",
          offset: slice.offset + directory.range.lowerBound + position)
      }
      do throws(Failure) {
        records.append(try ZipRecord(bytes, at: &position))
      } catch {
        var failure = error
        failure.offset = slice.offset + directory.range.lowerBound + position
        throw failure
      }
    }
    guard records.count == directory.count else {
      throw Failure(
        .malformed, "the ZIP archive's directory declares \(directory.count) entries and has \(records.count)",
        offset: slice.offset + directory.range.lowerBound)
    }
    records.sort { $0.localOffset < $1.localOffset }
    try place(records, end: directory.range.lowerBound)
    order = KeyOrder(count: entries.count) { entries[$0].name }
    if let (first, _) = order.firstDuplicate {
      throw Failure(.malformed, "the ZIP archive has two entries of the name '\(entries[first].name.printable())'")
    }
  }

  // MARK: - The end of the file

  /// Where the directory is, and how many entries it has.
  private func findDirectory() throws(Failure) -> (range: Range<Int>, count: Int) {
    let tail = try slice.bytes(in: max(0, slice.length - Self.endLength - Self.locatorLength)..<slice.length)
    let end = tail.count - Self.endLength
    guard tail.starts(with: Self.endSignature, at: end), tail.little(UInt16.self, at: end + 20) == 0 else {
      throw try withoutEnd()
    }
    let (disk, directoryDisk) = (tail.little(UInt16.self, at: end + 4), tail.little(UInt16.self, at: end + 6))
    let here = tail.little(UInt16.self, at: end + 8)
    let fields = ZipEnd(
      count: UInt64(tail.little(UInt16.self, at: end + 10)), size: UInt64(tail.little(UInt32.self, at: end + 12)),
      offset: UInt64(tail.little(UInt32.self, at: end + 16)), position: slice.length - Self.endLength)
    let isOneDisk = [0, .max].contains(disk) && [0, .max].contains(directoryDisk) && UInt64(here) == fields.count
    guard isOneDisk else { throw severalDisks }
    let locator = end - Self.locatorLength
    guard tail.starts(with: Self.locatorSignature, at: locator) else {
      guard disk == 0, directoryDisk == 0, fields.count != 0xFFFF, fields.size != 0xFFFF_FFFF,
        fields.offset != 0xFFFF_FFFF
      else { throw disagreeing("has no 64-bit end record, and its end record refers to one") }
      return try fields.checked(slice)
    }
    guard tail.little(UInt32.self, at: locator + 4) == 0, tail.little(UInt32.self, at: locator + 16) <= 1 else {
      throw severalDisks
    }
    return try end64(
      at: tail.little(UInt64.self, at: locator + 8), before: slice.length - Self.endLength - Self.locatorLength, fields)
  }

  /// The values of the 64-bit end record, which those of the other one repeat as far as they fit.
  private func end64(
    at declared: UInt64, before locator: Int, _ short: ZipEnd
  ) throws(Failure) -> (range: Range<Int>, count: Int) {
    guard let position = Int(exactly: declared), position <= locator - Self.end64Length else {
      throw disagreeing("has its 64-bit end record at \(declared), where there is none")
    }
    let record = try slice.bytes(in: position..<position + Self.end64Length)
    guard record.starts(with: Self.end64Signature, at: 0),
      record.little(UInt64.self, at: 4) == UInt64(locator - position - 12)
    else { throw disagreeing("has its 64-bit end record at \(declared), where there is none") }
    let count = record.little(UInt64.self, at: 32)
    guard record.little(UInt32.self, at: 16) == 0, record.little(UInt32.self, at: 20) == 0,
      record.little(UInt64.self, at: 24) == count
    else { throw severalDisks }
    let long = ZipEnd(
      count: count, size: record.little(UInt64.self, at: 40), offset: record.little(UInt64.self, at: 48),
      position: position)
    guard [long.count, 0xFFFF].contains(short.count), [long.size, 0xFFFF_FFFF].contains(short.size),
      [long.offset, 0xFFFF_FFFF].contains(short.offset)
    else { throw disagreeing("has two end records that say different things") }
    return try long.checked(slice)
  }

  private var severalDisks: Failure {
    Failure(.unsupported, "is one of several parts of a ZIP archive; put them together first")
  }

  private func disagreeing(_ what: String) -> Failure {
    Failure(.malformed, "the ZIP archive \(what)", offset: slice.offset + slice.length - Self.endLength)
  }

  /// What is wrong with a file that does not end as an archive does.
  private func withoutEnd() throws(Failure) -> Failure {
    let tail = try slice.bytes(in: max(0, slice.length - Self.endLength - 0xFFFF)..<slice.length)
    var position = tail.count - Self.endLength
    while position >= 0 {
      if tail.starts(with: Self.endSignature, at: position) {
        return Failure(
          .malformed, "the ZIP archive ends with a comment or other bytes, allowed are none",
          offset: slice.offset + slice.length - tail.count + position + Self.endLength)
      }
      position -= 1
    }
    return Failure(
      .malformed, "the ZIP archive is cut short: it has no end record (was the download broken off?)",
      offset: slice.offset + slice.length)
  }

  // MARK: - What stands before each entry

  /// - Parameter end: where the directory begins, and no entry may reach.
  private mutating func place(_ records: [ZipRecord], end: Int) throws(Failure) {
    for (number, record) in records.enumerated() {
      let limit = number + 1 < records.count ? records[number + 1].localOffset : end
      do throws(Failure) {
        // Bytes before the first entry would make it a file of another kind as well.
        guard number > 0 || record.localOffset == 0 else {
          throw Failure(.malformed, "has \(counted(record.localOffset, "byte")) before it, though it is the first")
        }
        let start = try record.dataStart(in: slice, limit: limit)
        guard record.size <= limit - start else {
          throw Failure(
            .malformed, "has \(record.size) bytes and reaches into what follows it, there are \(limit - start)")
        }
        entries.append(
          .init(name: record.name, range: start..<start + record.size, crc: record.crc, method: record.method))
      } catch {
        var failure = error
        failure.message = "the ZIP archive's entry '\(record.name.printable(limit: 256))' \(error.message)"
        failure.offset = slice.offset + record.localOffset
        throw failure
      }
    }
  }
}

/// What an end record says.
private struct ZipEnd {
  let count: UInt64
  /// Bytes of the directory.
  let size: UInt64
  let offset: UInt64
  /// Of the record.
  let position: Int

  /// The directory, which must end where the record begins.
  func checked(_ slice: FileSlice) throws(Failure) -> (range: Range<Int>, count: Int) {
    let (end, overflowed) = offset.addingReportingOverflow(size)
    guard !overflowed, end == UInt64(position), let start = Int(exactly: offset) else {
      throw Failure(
        .malformed, "the ZIP archive's directory has \(size) bytes at \(offset), expected to end at \(position)",
        offset: slice.offset + position)
    }
    guard position - start <= ZipArchive.directoryLimit, count <= UInt64(ZipArchive.entryLimit) else {
      throw Failure(
        .malformed,
        "the ZIP archive's directory has \(count) entries and \(size) bytes, allowed are \(ZipArchive.entryLimit) and "
          + "\(ZipArchive.directoryLimit)", offset: slice.offset + start)
    }
    return (start..<position, Int(count))
  }
}
