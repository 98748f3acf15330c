public import Bytes

/// The type of a metadata value, by its number in the file.
public enum GGUFValueType: UInt32, Sendable, CaseIterable {
  case uint8 = 0
  case int8 = 1
  case uint16 = 2
  case int16 = 3
  case uint32 = 4
  case int32 = 5
  case float32 = 6
  case bool = 7
  case string = 8
  case array = 9
  case uint64 = 10
  case int64 = 11
  case float64 = 12

  /// Bytes of one value; nil for strings and arrays, which say their length.
  public var byteCount: Int? {
    switch self {
    case .uint8, .int8, .bool: 1
    case .uint16, .int16: 2
    case .uint32, .int32, .float32: 4
    case .uint64, .int64, .float64: 8
    case .string, .array: nil
    }
  }

  public var name: String { String(describing: self) }
}

/// One metadata value with its type. Strings are bytes: real files hold some that are not UTF-8.
public enum GGUFValue: Sendable {
  case uint8(UInt8)
  case int8(Int8)
  case uint16(UInt16)
  case int16(Int16)
  case uint32(UInt32)
  case int32(Int32)
  case uint64(UInt64)
  case int64(Int64)
  case float32(Float)
  case float64(Double)
  case bool(Bool)
  case string([UInt8])
  case array(GGUFArray)

  public var type: GGUFValueType {
    switch self {
    case .uint8: .uint8
    case .int8: .int8
    case .uint16: .uint16
    case .int16: .int16
    case .uint32: .uint32
    case .int32: .int32
    case .uint64: .uint64
    case .int64: .int64
    case .float32: .float32
    case .float64: .float64
    case .bool: .bool
    case .string: .string
    case .array: .array
    }
  }

  public static func text(_ text: String) -> GGUFValue { .string(Array(text.utf8)) }
  public static func strings(_ values: [String]) -> GGUFValue { .array(GGUFArray(strings: values)) }
  public static func int32s(_ values: [Int32]) -> GGUFValue { .array(GGUFArray(int32s: values)) }
  public static func uint32s(_ values: [UInt32]) -> GGUFValue { .array(GGUFArray(uint32s: values)) }
  public static func float32s(_ values: [Float]) -> GGUFValue { .array(GGUFArray(float32s: values)) }
  public static func bools(_ values: [Bool]) -> GGUFValue { .array(GGUFArray(bools: values)) }

  /// A whole number of any width.
  public var integer: Int? {
    switch self {
    case .uint8(let value): Int(value)
    case .int8(let value): Int(value)
    case .uint16(let value): Int(value)
    case .int16(let value): Int(value)
    case .uint32(let value): Int(value)
    case .int32(let value): Int(value)
    case .uint64(let value): Int(exactly: value)
    case .int64(let value): Int(exactly: value)
    default: nil
    }
  }

  /// A number of either precision.
  public var number: Double? {
    switch self {
    case .float32(let value): Double(value)
    case .float64(let value): value
    default: nil
    }
  }

  public var bool: Bool? { if case .bool(let value) = self { value } else { nil } }

  /// Nil for a string that is not UTF-8, as for any other type.
  public var text: String? {
    if case .string(let bytes) = self { String(validating: bytes, as: UTF8.self) } else { nil }
  }

  public var array: GGUFArray? { if case .array(let value) = self { value } else { nil } }
}

/// An array as it is encoded, with the type of its elements. What was read stays in the file until it is asked for:
/// a vocabulary has hundreds of thousands of strings.
public struct GGUFArray: Sendable {
  enum Storage: Sendable {
    case bytes([UInt8])
    case file(InputFile, Range<Int>)
  }

  public let elementType: GGUFValueType
  public let count: Int
  let storage: Storage

  init(_ elementType: GGUFValueType, count: Int, _ storage: Storage) {
    self.elementType = elementType
    self.count = count
    self.storage = storage
  }

  public init(strings: [String]) {
    self.init(byteStrings: strings.lazy.map { Array($0.utf8) })
  }

  /// - Parameter elements: `count` strings as they stand in a file, each after its length as 64 bits.
  package init(encodedStrings elements: [UInt8], count: Int) { self.init(.string, count: count, .bytes(elements)) }

  public init(byteStrings: some Collection<[UInt8]>) {
    var bytes: [UInt8] = []
    for string in byteStrings {
      bytes.append(littleEndian: UInt64(string.count))
      bytes += string
    }
    self.init(.string, count: byteStrings.count, .bytes(bytes))
  }

  /// - Throws: `internal` when an element is of another type.
  public init(_ elementType: GGUFValueType, of values: [GGUFValue]) throws(Failure) {
    var bytes: [UInt8] = []
    for value in values {
      guard value.type == elementType else {
        throw Failure(.internal, "\(value.type.name) in an array of \(elementType.name)")
      }
      try bytes.append(value)
    }
    self.init(elementType, count: values.count, .bytes(bytes))
  }

  public init(int32s values: [Int32]) { self.init(.int32, values.map { UInt32(bitPattern: $0) }) }
  public init(uint32s values: [UInt32]) { self.init(.uint32, values) }
  public init(float32s values: [Float]) { self.init(.float32, values.map(\.bitPattern)) }
  public init(bools values: [Bool]) { self.init(.bool, values.map { UInt8($0 ? 1 : 0) }) }

  private init<T: FixedWidthInteger>(_ type: GGUFValueType, _ values: [T]) {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(values.count * MemoryLayout<T>.size)
    for value in values { bytes.append(littleEndian: value) }
    self.init(type, count: values.count, .bytes(bytes))
  }

  /// Bytes of the elements as they stand in a file.
  public var byteCount: Int {
    switch storage {
    case .bytes(let bytes): bytes.count
    case .file(_, let range): range.count
    }
  }

  /// The elements as they stand in a file.
  public func encodedElements() throws(Failure) -> [UInt8] {
    switch storage {
    case .bytes(let bytes): bytes
    case .file(let file, let range): try file.bytes(in: range)
    }
  }

  /// The elements one by one, in order.
  ///
  /// - Parameter limit: how many are wanted; the others are not decoded, and not read unless they are arrays.
  public func values(first limit: Int = .max) throws(Failure) -> [GGUFValue] {
    let wanted = min(limit, count)
    var decoder = GGUFDecoder(try encodedElements(first: wanted))
    var values: [GGUFValue] = []
    values.reserveCapacity(wanted)
    for _ in 0..<wanted { values.append(try decoder.value(of: elementType)) }
    return values
  }

  private func encodedElements(first wanted: Int) throws(Failure) -> [UInt8] {
    guard wanted < count, case .file(let file, let range) = storage else { return try encodedElements() }
    if let width = elementType.byteCount {
      return try file.bytes(in: range.lowerBound..<range.lowerBound + wanted * width)
    }
    guard elementType == .string else { return try encodedElements() }
    var cursor = GGUFCursor(file)
    try cursor.skip(range.lowerBound, "a header")
    for _ in 0..<wanted {
      let length = try cursor.integer(UInt64.self, "the length of a string")
      try cursor.skip(Int(clamping: length), "a string")
    }
    return try file.bytes(in: range.lowerBound..<cursor.position)
  }

  /// The byte strings of an array of strings; nil for an array of something else.
  public func byteStrings() throws(Failure) -> [[UInt8]]? {
    guard elementType == .string else { return nil }
    var decoder = GGUFDecoder(try encodedElements())
    var strings: [[UInt8]] = []
    strings.reserveCapacity(count)
    for _ in 0..<count { strings.append(try decoder.string()) }
    return strings
  }

  /// The whole numbers of an array of any integer type; nil for an array of something else.
  public func integers() throws(Failure) -> [Int]? {
    switch elementType {
    case .string, .array, .float32, .float64, .bool: return nil
    default: break
    }
    var decoder = GGUFDecoder(try encodedElements())
    var integers: [Int] = []
    integers.reserveCapacity(count)
    for _ in 0..<count {
      guard let integer = try decoder.value(of: elementType).integer else { return nil }
      integers.append(integer)
    }
    return integers
  }

  /// The numbers of an array of floats; nil for an array of something else.
  public func numbers() throws(Failure) -> [Double]? {
    guard elementType == .float32 || elementType == .float64 else { return nil }
    var decoder = GGUFDecoder(try encodedElements())
    var numbers: [Double] = []
    numbers.reserveCapacity(count)
    for _ in 0..<count {
      guard let number = try decoder.value(of: elementType).number else { return nil }
      numbers.append(number)
    }
    return numbers
  }
}

extension [UInt8] {
  mutating func append(littleEndian value: some FixedWidthInteger) {
    var value = value.littleEndian
    unsafe Swift.withUnsafeBytes(of: &value) { unsafe append(contentsOf: $0) }
  }
}
