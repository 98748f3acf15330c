/// Types that can be read as real numbers: those of plain weights, and f64.
public enum RealType: String, Sendable, CaseIterable {
  case bf16, f16, f32, f64

  /// Bytes of one value.
  public var byteCount: Int { narrow?.byteCount ?? 8 }

  /// The same as a type of plain weights; nil for f64.
  var narrow: FloatType? {
    switch self {
    case .bf16: .bf16
    case .f16: .f16
    case .f32: .f32
    case .f64: nil
    }
  }

  /// The value of `nibble_float_type` in the kernels' header.
  var kernelValue: Int32 { narrow?.kernelValue ?? 3 }
}
