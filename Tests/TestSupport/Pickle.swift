/// Assembles pickles instruction by instruction, valid or not, without the code under test.
public enum Pickle {
  public static func little(_ value: some FixedWidthInteger, _ count: Int) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
  }

  /// PROTO, the value, STOP.
  public static func whole(_ value: [UInt8], version: UInt8 = 2) -> [UInt8] { [0x80, version] + value + [0x2E] }

  public static let none: [UInt8] = [0x4E]

  public static func text(_ text: String) -> [UInt8] { [0x58] + little(text.utf8.count, 4) + Array(text.utf8) }

  public static func integer(_ value: Int) -> [UInt8] {
    switch value {
    case 0..<256: [0x4B, UInt8(value)]
    case 256..<65_536: [0x4D] + little(value, 2)
    case Int(Int32.min)...Int(Int32.max): [0x4A] + little(value, 4)
    default: [0x8A, 8] + little(value, 8)
    }
  }

  public static func global(_ module: String, _ name: String) -> [UInt8] { Array("c\(module)\n\(name)\n".utf8) }

  public static func tuple(_ items: [[UInt8]]) -> [UInt8] {
    switch items.count {
    case 0: [0x29]
    case 1...3: items.flatMap(\.self) + [0x84 + UInt8(items.count)]
    default: [0x28] + items.flatMap(\.self) + [0x74]
    }
  }

  public static func integers(_ values: [Int]) -> [UInt8] { tuple(values.map { integer($0) }) }

  public static func list(_ items: [[UInt8]]) -> [UInt8] { [0x5D, 0x28] + items.flatMap(\.self) + [0x65] }

  public static func entries(_ pairs: [(String, [UInt8])]) -> [UInt8] {
    [0x28] + pairs.flatMap { text($0.0) + $0.1 } + [0x75]
  }

  public static func dictionary(_ pairs: [(String, [UInt8])]) -> [UInt8] { [0x7D] + entries(pairs) }

  public static func call(_ module: String, _ name: String, _ arguments: [[UInt8]]) -> [UInt8] {
    global(module, name) + tuple(arguments) + [0x52]
  }

  /// An instance of a class with these attributes.
  public static func object(_ module: String, _ name: String, _ attributes: [(String, [UInt8])]) -> [UInt8] {
    global(module, name) + [0x29, 0x81] + dictionary(attributes) + [0x62]
  }

  public static let orderedDictionary = call("collections", "OrderedDict", [])

  /// A reference to a storage.
  public static func storage(
    _ count: Int, _ type: String = "FloatStorage", module: String = "torch", key: String = "0",
    location: String = "cpu", view: [UInt8]? = nil
  ) -> [UInt8] {
    tuple(
      [text("storage"), global(module, type), text(key), text(location), integer(count)] + (view.map { [$0] } ?? []))
      + [0x51]
  }

  /// Row-major strides.
  public static func strides(_ shape: [Int]) -> [Int] {
    var strides = [Int](repeating: 1, count: shape.count)
    for axis in shape.indices.dropLast().reversed() { strides[axis] = strides[axis + 1] * max(1, shape[axis + 1]) }
    return strides
  }

  public static func tensor(
    _ storage: [UInt8], _ shape: [Int], strides: [Int]? = nil, offset: Int = 0, more: [[UInt8]] = []
  ) -> [UInt8] {
    call(
      "torch._utils", more.count == 1 && more[0].first == 0x63 ? "_rebuild_tensor_v3" : "_rebuild_tensor_v2",
      [
        storage, integer(offset), integers(shape), integers(strides ?? Self.strides(shape)), [0x89], orderedDictionary,
      ] + more)
  }
}
