/// The type of a tensor's elements, one row for each dtype of safetensors 0.8.
public enum ElementType: UInt8, Sendable, CaseIterable {
  case bool, f4, f6e2m3, f6e3m2, u8, i8, f8e5m2, f8e4m3, f8e8m0, f8e4m3fnuz, f8e5m2fnuz
  case i16, u16, f16, bf16, i32, u32, f32, c64, f64, i64, u64

  /// Name in a safetensors header, and width of one element in bits.
  private var row: (name: String, bits: Int) {
    switch self {
    case .bool: ("BOOL", 8)
    case .f4: ("F4", 4)
    case .f6e2m3: ("F6_E2M3", 6)
    case .f6e3m2: ("F6_E3M2", 6)
    case .u8: ("U8", 8)
    case .i8: ("I8", 8)
    case .f8e5m2: ("F8_E5M2", 8)
    case .f8e4m3: ("F8_E4M3", 8)
    case .f8e8m0: ("F8_E8M0", 8)
    case .f8e4m3fnuz: ("F8_E4M3FNUZ", 8)
    case .f8e5m2fnuz: ("F8_E5M2FNUZ", 8)
    case .i16: ("I16", 16)
    case .u16: ("U16", 16)
    case .f16: ("F16", 16)
    case .bf16: ("BF16", 16)
    case .i32: ("I32", 32)
    case .u32: ("U32", 32)
    case .f32: ("F32", 32)
    case .c64: ("C64", 64)
    case .f64: ("F64", 64)
    case .i64: ("I64", 64)
    case .u64: ("U64", 64)
    }
  }

  public var name: String { row.name }
  public var bitWidth: Int { row.bits }

  /// Bytes of alignment that a typed view of the data needs.
  public var alignment: Int { max(1, bitWidth / 8) }

  public init?(name: String) {
    guard let match = Self.allCases.first(where: { $0.name == name }) else { return nil }
    self = match
  }

  /// f16, bf16, f32, f64: what can be read as real numbers and quantized.
  public var isFloat: Bool {
    switch self {
    case .f16, .bf16, .f32, .f64: true
    default: false
    }
  }
}
