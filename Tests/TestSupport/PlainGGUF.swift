/// A small GGUF file written field by field, without the code under test.
public struct PlainGGUF: Sendable {
  public enum Value: Sendable {
    case u8(UInt8)
    case u16(UInt16)
    case u32(UInt32)
    case i32(Int32)
    case u64(UInt64)
    case f32(Float)
    case bool(Bool)
    case text(String)
    case texts([String])
    case i32s([Int32])
  }

  public struct Tensor: Sendable {
    public var name: String
    /// The number of ggml's type: 0 is f32, 8 q8_0.
    public var type: UInt32
    /// The row's length comes last.
    public var shape: [Int]
    public var data: [UInt8]

    public init(_ name: String, type: UInt32 = 0, _ shape: [Int], _ data: [UInt8]) {
      (self.name, self.type, self.shape, self.data) = (name, type, shape, data)
    }
  }

  public var pairs: [(key: String, value: Value)]
  public var tensors: [Tensor]
  public var alignment = 32
  public var version: UInt32 = 3

  public init(_ pairs: [(key: String, value: Value)], _ tensors: [Tensor]) {
    self.pairs = pairs
    self.tensors = tensors
  }

  /// Six metadata pairs and four tensors whose bytes follow from their positions.
  public static let small = PlainGGUF(
    [
      ("general.architecture", .text("llama")), ("general.name", .text("tiny")), ("llama.context_length", .u32(128)),
      ("llama.rope.freq_base", .f32(10000)), ("tokenizer.ggml.tokens", .texts(["a", "b", "é"])),
      ("tokenizer.ggml.add_bos_token", .bool(true)),
    ],
    [
      Tensor("token_embd.weight", [3, 32], ramp(384, 1)), Tensor("blk.0.attn_norm.weight", [5], ramp(20, 2)),
      Tensor("blk.0.attn_q.weight", type: 8, [2, 32], ramp(68, 3)), Tensor("output.weight", [3, 32], ramp(384, 4)),
    ])

  /// Bytes that differ from tensor to tensor.
  public static func ramp(_ count: Int, _ step: Int) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: $0 &* (2 * step + 1)) }
  }

  public subscript(key: String) -> Value? {
    get { pairs.first { $0.key == key }?.value }
    set {
      guard let index = pairs.firstIndex(where: { $0.key == key }) else {
        if let newValue { pairs.append((key, newValue)) }
        return
      }
      if let newValue { pairs[index].value = newValue } else { pairs.remove(at: index) }
    }
  }

  /// Everything before the data, with its padding.
  public var header: [UInt8] {
    var bytes = Array("GGUF".utf8) + Self.littleEndian(UInt64(version), 4)
    bytes += Self.littleEndian(UInt64(tensors.count)) + Self.littleEndian(UInt64(pairs.count))
    for (key, value) in pairs { bytes += Self.text(key) + Self.encoded(value) }
    var offset = 0
    for tensor in tensors {
      bytes += Self.text(tensor.name) + Self.littleEndian(UInt64(tensor.shape.count), 4)
      for dimension in tensor.shape.reversed() { bytes += Self.littleEndian(UInt64(dimension)) }
      bytes += Self.littleEndian(UInt64(tensor.type), 4) + Self.littleEndian(UInt64(offset))
      offset += padded(tensor.data.count)
    }
    return bytes + [UInt8](repeating: 0, count: padded(bytes.count) - bytes.count)
  }

  public var data: [UInt8] {
    tensors.flatMap { $0.data + [UInt8](repeating: 0, count: padded($0.data.count) - $0.data.count) }
  }

  public var bytes: [UInt8] { header + data }

  private func padded(_ count: Int) -> Int { (count + alignment - 1) / alignment * alignment }

  private static func text(_ text: String) -> [UInt8] { littleEndian(UInt64(text.utf8.count)) + Array(text.utf8) }

  private static func encoded(_ value: Value) -> [UInt8] {
    func typed(_ number: UInt64, _ bytes: [UInt8]) -> [UInt8] { littleEndian(number, 4) + bytes }
    return switch value {
    case .u8(let value): typed(0, [value])
    case .u16(let value): typed(2, littleEndian(UInt64(value), 2))
    case .u32(let value): typed(4, littleEndian(UInt64(value), 4))
    case .i32(let value): typed(5, littleEndian(UInt64(UInt32(bitPattern: value)), 4))
    case .f32(let value): typed(6, littleEndian(UInt64(value.bitPattern), 4))
    case .bool(let value): typed(7, [value ? 1 : 0])
    case .text(let value): typed(8, text(value))
    case .u64(let value): typed(10, littleEndian(value))
    case .texts(let values):
      typed(9, littleEndian(8, 4) + littleEndian(UInt64(values.count)) + values.flatMap(text))
    case .i32s(let values):
      typed(
        9,
        littleEndian(5, 4) + littleEndian(UInt64(values.count))
          + values.flatMap { littleEndian(UInt64(UInt32(bitPattern: $0)), 4) })
    }
  }

  private static func littleEndian(_ value: UInt64, _ count: Int = 8) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: value >> (8 * UInt64($0))) }
  }
}
