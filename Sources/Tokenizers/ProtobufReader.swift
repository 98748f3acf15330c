import Bytes

/// A strict cursor over one protocol buffer message (proto2 wire format, without groups).
///
/// It keeps no more than a range, copies nothing that is not asked for, and every failure is `malformed` with the
/// offset in the file.
struct ProtobufReader {
  enum Value {
    case varint(UInt64)
    case fixed64(UInt64)
    /// A string, bytes, or a message.
    case bytes(Range<Int>)
    case fixed32(UInt32)

    var name: String {
      switch self {
      case .varint: "a varint"
      case .fixed64: "8 bytes"
      case .bytes: "a length and bytes"
      case .fixed32: "4 bytes"
      }
    }
  }

  let bytes: [UInt8]
  private let end: Int
  private(set) var position: Int

  init(_ bytes: [UInt8]) { self.init(bytes, bytes.indices) }

  /// - Parameter range: where the message lies in `bytes`.
  init(_ bytes: [UInt8], _ range: Range<Int>) {
    self.bytes = bytes
    position = range.lowerBound
    end = range.upperBound
  }

  /// The next field; nil at the end of the message.
  mutating func field() throws(Failure) -> (number: Int, value: Value, offset: Int)? {
    guard position < end else { return nil }
    let start = position
    let key = try varint("a field's key")
    let number = key >> 3
    guard (1...0x1FFF_FFFF).contains(number) else {
      throw failure("field number \(number) is outside 1 to 536870911", at: start)
    }
    let value: Value
    switch key & 7 {
    case 0: value = .varint(try varint("field \(number)"))
    case 1: value = .fixed64(UInt64(try little(8, "field \(number)")))
    case 2: value = .bytes(try block("field \(number)"))
    case 5: value = .fixed32(UInt32(truncatingIfNeeded: try little(4, "field \(number)")))
    case let type: throw failure("field \(number) has wire type \(type), allowed are 0, 1, 2 and 5", at: start)
    }
    return (Int(number), value, start)
  }

  private mutating func varint(_ subject: String) throws(Failure) -> UInt64 {
    let start = position
    var value: UInt64 = 0
    var shift: UInt64 = 0
    while position < end {
      let byte = bytes[position]
      position += 1
      if shift == 63, byte > 1 { throw failure("\(subject): the varint is beyond 64 bits", at: start) }
      value |= UInt64(byte & 0x7F) << shift
      if byte < 0x80 { return value }
      shift += 7
    }
    throw failure("\(subject): the varint is cut short", at: start)
  }

  private mutating func little(_ count: Int, _ subject: String) throws(Failure) -> UInt64 {
    guard end - position >= count else {
      throw failure("\(subject): \(end - position) bytes are left, needed are \(count)", at: position)
    }
    var value: UInt64 = 0
    for index in 0..<count { value |= UInt64(bytes[position + index]) << UInt64(8 * index) }
    position += count
    return value
  }

  private mutating func block(_ subject: String) throws(Failure) -> Range<Int> {
    let start = position
    let length = try varint("\(subject), its length")
    guard let count = Int(exactly: length), count <= end - position else {
      throw failure("\(subject): its length is \(length), but \(end - position) bytes are left", at: start)
    }
    defer { position += count }
    return position..<position + count
  }

  func failure(_ message: String, at offset: Int) -> Failure { Failure(.malformed, message, offset: offset) }
}
