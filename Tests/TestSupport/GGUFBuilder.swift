/// Assembles GGUF files byte by byte, valid or not, without the code under test.
public struct GGUFBuilder: Sendable {
  /// A value of metadata: the number of its type, and what stands after it.
  public struct Value: Sendable {
    public var type: UInt32
    public var bytes: [UInt8]

    public init(_ type: UInt32, _ bytes: [UInt8]) {
      self.type = type
      self.bytes = bytes
    }
  }

  public struct Pair: Sendable {
    public var key: [UInt8]
    /// As it stands before the key; nil for the true one.
    public var keyLength: UInt64?
    public var value: Value

    public init(_ key: String, _ value: Value) { self.init(key: Array(key.utf8), value) }

    public init(key: [UInt8], keyLength: UInt64? = nil, _ value: Value) {
      self.key = key
      self.keyLength = keyLength
      self.value = value
    }
  }

  public struct Tensor: Sendable {
    public var name: [UInt8]
    public var nameLength: UInt64?
    /// In the order of the file: the length of a row first.
    public var dimensions: [UInt64]
    /// As it stands before the dimensions; nil for the true one.
    public var rank: UInt32?
    public var type: UInt32
    /// nil for the first aligned byte after the tensor before it.
    public var offset: UInt64?
    public var data: [UInt8]

    public init(_ name: String, _ type: UInt32, _ dimensions: [UInt64], _ data: [UInt8], offset: UInt64? = nil) {
      self.name = Array(name.utf8)
      self.type = type
      self.dimensions = dimensions
      self.data = data
      self.offset = offset
    }
  }

  public var magic = Array("GGUF".utf8)
  public var version: UInt32 = 3
  /// As they stand in the file; nil for the true ones.
  public var tensorCount: UInt64?
  public var pairCount: UInt64?
  public var pairs: [Pair]
  public var tensors: [Tensor]
  /// What data is aligned to, whatever the metadata say.
  public var alignment = 32
  /// Whether the last tensor is followed by padding too.
  public var isPadded = true
  /// What follows everything else.
  public var tail: [UInt8] = []

  public init(_ pairs: [Pair] = [], _ tensors: [Tensor] = []) {
    self.pairs = pairs
    self.tensors = tensors
  }

  /// Without the padding before the data.
  public var header: [UInt8] {
    var bytes = magic + Self.littleEndian(version)
    bytes += Self.littleEndian(tensorCount ?? UInt64(tensors.count))
    bytes += Self.littleEndian(pairCount ?? UInt64(pairs.count))
    for pair in pairs {
      bytes += Self.littleEndian(pair.keyLength ?? UInt64(pair.key.count)) + pair.key
      bytes += Self.littleEndian(pair.value.type) + pair.value.bytes
    }
    var offset = 0
    for tensor in tensors {
      bytes += Self.littleEndian(tensor.nameLength ?? UInt64(tensor.name.count)) + tensor.name
      bytes += Self.littleEndian(tensor.rank ?? UInt32(tensor.dimensions.count))
      for dimension in tensor.dimensions { bytes += Self.littleEndian(dimension) }
      bytes += Self.littleEndian(tensor.type) + Self.littleEndian(tensor.offset ?? UInt64(offset))
      offset += padded(tensor.data.count)
    }
    return bytes
  }

  /// Where the data begins.
  public var dataStart: Int { padded(header.count) }

  public var bytes: [UInt8] {
    var bytes = header
    for tensor in tensors {
      bytes += [UInt8](repeating: 0, count: padded(bytes.count) - bytes.count)
      bytes += tensor.data
    }
    if isPadded { bytes += [UInt8](repeating: 0, count: padded(bytes.count) - bytes.count) }
    return bytes + tail
  }

  private func padded(_ count: Int) -> Int { (count + alignment - 1) / alignment * alignment }

  public static func littleEndian<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
    (0..<MemoryLayout<T>.size).map { UInt8(truncatingIfNeeded: value >> T(8 * $0)) }
  }

  // MARK: - Changes

  /// Puts a value in the place of a key's, or at the end; nil takes the pair away.
  public mutating func set(_ key: String, _ value: Value?) {
    let position = pairs.firstIndex { $0.key == Array(key.utf8) }
    switch (position, value) {
    case (let position?, let value?): pairs[position].value = value
    case (let position?, nil): pairs.remove(at: position)
    case (nil, let value?): pairs.append(Pair(key, value))
    case (nil, nil): break
    }
  }

  public func position(of name: String) -> Int? { tensors.firstIndex { $0.name == Array(name.utf8) } }

  /// Changes a tensor.
  public mutating func change(_ name: String, _ body: (inout Tensor) -> Void) {
    if let position = position(of: name) { body(&tensors[position]) }
  }
}

extension GGUFBuilder.Value {
  public static func uint8(_ value: UInt8) -> Self { Self(0, [value]) }
  public static func int8(_ value: Int8) -> Self { Self(1, GGUFBuilder.littleEndian(value)) }
  public static func uint16(_ value: UInt16) -> Self { Self(2, GGUFBuilder.littleEndian(value)) }
  public static func int16(_ value: Int16) -> Self { Self(3, GGUFBuilder.littleEndian(value)) }
  public static func uint32(_ value: UInt32) -> Self { Self(4, GGUFBuilder.littleEndian(value)) }
  public static func int32(_ value: Int32) -> Self { Self(5, GGUFBuilder.littleEndian(value)) }
  public static func float32(_ value: Float) -> Self { Self(6, GGUFBuilder.littleEndian(value.bitPattern)) }
  /// Any byte: only 0 and 1 are bools.
  public static func bool(_ value: UInt8) -> Self { Self(7, [value]) }
  public static func string(_ text: String) -> Self { string(Array(text.utf8)) }
  public static func string(_ bytes: [UInt8], length: UInt64? = nil) -> Self { Self(8, encoded(bytes, length)) }
  public static func uint64(_ value: UInt64) -> Self { Self(10, GGUFBuilder.littleEndian(value)) }
  public static func int64(_ value: Int64) -> Self { Self(11, GGUFBuilder.littleEndian(value)) }
  public static func float64(_ value: Double) -> Self { Self(12, GGUFBuilder.littleEndian(value.bitPattern)) }

  /// - Parameters:
  ///   - type: of the elements.
  ///   - count: as it stands in the file, true or not.
  public static func array(of type: UInt32, count: UInt64, _ elements: [UInt8]) -> Self {
    Self(9, GGUFBuilder.littleEndian(type) + GGUFBuilder.littleEndian(count) + elements)
  }

  /// Of values that all have the first one's type.
  public static func array(_ values: [Self]) -> Self {
    array(of: values.first?.type ?? 0, count: UInt64(values.count), values.flatMap(\.bytes))
  }

  public static func strings(_ texts: [String]) -> Self {
    array(of: 8, count: UInt64(texts.count), texts.flatMap { encoded(Array($0.utf8), nil) })
  }

  /// Arrays of one element each around an empty one.
  public static func nested(_ depth: Int) -> Self {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(12 * depth)
    for _ in 1..<depth { bytes += GGUFBuilder.littleEndian(UInt32(9)) + GGUFBuilder.littleEndian(UInt64(1)) }
    return Self(9, bytes + GGUFBuilder.littleEndian(UInt32(4)) + GGUFBuilder.littleEndian(UInt64(0)))
  }

  private static func encoded(_ bytes: [UInt8], _ length: UInt64?) -> [UInt8] {
    GGUFBuilder.littleEndian(length ?? UInt64(bytes.count)) + bytes
  }
}

extension GGUFBuilder {
  /// Six pairs, three tensors of different types: what most twins are.
  public static let small = GGUFBuilder(
    [
      Pair("general.architecture", .string("test")), Pair("test.block_count", .uint32(1)),
      Pair("test.epsilon", .float32(0.5)), Pair("test.flag", .bool(1)), Pair("test.names", .strings(["x", "", "yz"])),
      Pair("test.widths", .array([.int32(1), .int32(-2)])),
    ],
    [
      Tensor("a.weight", 0, [4, 2], (0..<8).flatMap { littleEndian(Float($0).bitPattern) }),
      Tensor("b.weight", 8, [32], littleEndian(UInt16(0x3C00)) + Array(0..<32)),
      Tensor("c.bias", 1, [3], [0, 0x3C, 0, 0x40, 0, 0x44]),
    ])

  /// One tensor `a` of F32 and nothing else.
  public static let one = GGUFBuilder([], [Tensor("a", 0, [4], [UInt8](repeating: 0, count: 16))])
}
