public import GGUF
package import Quantization
package import Tensors

extension GGMLType {
  /// The type of safetensors that is the same, element for element; nil for a type of blocks.
  package var elementType: ElementType? {
    switch self {
    case .f32: .f32
    case .f16: .f16
    case .bf16: .bf16
    case .f64: .f64
    case .i8: .i8
    case .i16: .i16
    case .i32: .i32
    case .i64: .i64
    default: nil
    }
  }

  package init?(_ type: ElementType) {
    guard let match = Self.allCases.first(where: { $0.elementType == type }) else { return nil }
    self = match
  }

  /// How its blocks are encoded; nil for a type without blocks, and for those in which activations are held.
  package var blockType: BlockType? { BlockType(rawValue: name) }

  /// Whether Nibble can write values as this type.
  public var canBeEncoded: Bool {
    switch self {
    case .f32, .f16, .bf16: true
    default: blockType?.canEncode ?? false
    }
  }

  /// Whether values lose precision block by block, which ggml calls quantized.
  package var isQuantized: Bool {
    switch self {
    case .f32, .f16, .bf16, .f64, .i8, .i16, .i32, .i64: false
    default: true
    }
  }
}
