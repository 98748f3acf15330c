public import Bytes
public import GGUF
import Tensors

extension TypeChoice {
  /// Refuses what cannot be converted, or should not be: values that have been quantized once lose again.
  ///
  /// - Parameter types: one for each tensor, of what is to become of it.
  /// - Throws: `unsupported` for a quantized tensor of another type than its new one, unless `allowsRequantization`,
  ///   and for one of integers or doubles whatever is allowed.
  public static func checkSource(
    _ tensors: [GGUFTensor], types: [GGMLType], allowsRequantization: Bool
  ) throws(Failure) {
    for (tensor, type) in zip(tensors, types) where tensor.type != type {
      switch tensor.type {
      case .f32, .f16, .bf16: continue
      case .i8, .i16, .i32, .i64, .f64:
        throw Failure(.unsupported, "\(tensor.type.name) cannot become \(type.name)", tensor: tensor.name.string)
      default:
        guard allowsRequantization else {
          throw Failure(
            .unsupported,
            "is quantized as \(tensor.type.name) already and would lose again as \(type.name); quantize from 16 or 32 "
              + "bits, or allow it (--force-requantize)", tensor: tensor.name.string)
        }
      }
    }
  }
}
