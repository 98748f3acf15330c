import Bytes

/// Reads values from bytes that the header's parser has walked over, or that a user wrote: every read is checked again.
struct GGUFDecoder {
  private let bytes: [UInt8]
  private(set) var position = 0

  init(_ bytes: [UInt8]) { self.bytes = bytes }

  mutating func integer<T: FixedWidthInteger>(_ type: T.Type) throws(Failure) -> T {
    let width = MemoryLayout<T>.size
    guard bytes.count - position >= width else { throw Failure(.malformed, "an array's elements are cut short") }
    var value: T = 0
    for index in 0..<width { value |= T(truncatingIfNeeded: bytes[position + index]) << T(8 * index) }
    position += width
    return value
  }

  mutating func string() throws(Failure) -> [UInt8] {
    let length = try integer(UInt64.self)
    guard let count = Int(exactly: length), count <= bytes.count - position else {
      throw Failure(.malformed, "an array's elements are cut short")
    }
    defer { position += count }
    return Array(bytes[position..<position + count])
  }

  mutating func value(of type: GGUFValueType, depth: Int = 0) throws(Failure) -> GGUFValue {
    switch type {
    case .uint8: .uint8(try integer(UInt8.self))
    case .int8: .int8(try integer(Int8.self))
    case .uint16: .uint16(try integer(UInt16.self))
    case .int16: .int16(try integer(Int16.self))
    case .uint32: .uint32(try integer(UInt32.self))
    case .int32: .int32(try integer(Int32.self))
    case .uint64: .uint64(try integer(UInt64.self))
    case .int64: .int64(try integer(Int64.self))
    case .float32: .float32(Float(bitPattern: try integer(UInt32.self)))
    case .float64: .float64(Double(bitPattern: try integer(UInt64.self)))
    case .bool: .bool(try integer(UInt8.self) != 0)
    case .string: .string(try string())
    case .array: .array(try array(depth: depth))
    }
  }

  private mutating func array(depth: Int) throws(Failure) -> GGUFArray {
    guard depth < GGUFHeader.nestingLimit else { throw Failure(.malformed, "arrays are nested too deeply") }
    let number = try integer(UInt32.self)
    guard let type = GGUFValueType(rawValue: number) else {
      throw Failure(.malformed, "an array's elements have the unknown type \(number)")
    }
    let length = try integer(UInt64.self)
    guard let count = Int(exactly: length), count <= bytes.count else {
      throw Failure(.malformed, "an array's elements are cut short")
    }
    let start = position
    if let width = type.byteCount {
      guard count <= (bytes.count - position) / width else {
        throw Failure(.malformed, "an array's elements are cut short")
      }
      position += count * width
    } else {
      for _ in 0..<count { _ = try value(of: type, depth: depth + 1) }
    }
    return GGUFArray(type, count: count, .bytes(Array(bytes[start..<position])))
  }
}
