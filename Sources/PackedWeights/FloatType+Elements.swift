package import Quantization
package import Tensors

extension FloatType {
  package init?(_ type: ElementType) {
    switch type {
    case .bf16: self = .bf16
    case .f16: self = .f16
    case .f32: self = .f32
    default: return nil
    }
  }

  package var elementType: ElementType {
    switch self {
    case .bf16: .bf16
    case .f16: .f16
    case .f32: .f32
    }
  }
}
