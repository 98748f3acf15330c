/// What the codes of quantized weights are, before they are scaled. Codes of a row follow each other in a stream of
/// bits: code i takes the bits from `i * bits` on, the lowest of the first byte first.
public enum CodeType: Hashable, Sendable {
  /// A sign, four bits of exponent and three of mantissa; the greatest is 448, all ones are NaN.
  case e4m3
  /// A sign, five bits of exponent and two of mantissa, with infinities.
  case e5m2
  /// A sign, two bits of exponent and one of mantissa: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and the same below zero.
  case e2m1
  /// Powers of two: 2^(code - 127); 255 is NaN.
  case e8m0
  /// Whole numbers of 8 bits in two's complement.
  case int8
  /// Whole numbers from zero on, of 1 to 8 bits.
  case unsigned(bits: Int)
  /// Whole numbers, of 1 to 8 bits, that are stored with 2^(bits - 1) added to them.
  case offset(bits: Int)

  /// Bits of one code.
  public var bits: Int {
    switch self {
    case .e4m3, .e5m2, .e8m0, .int8: 8
    case .e2m1: 4
    case .unsigned(let bits), .offset(let bits): bits
    }
  }

  /// What is taken from a code that is a whole number.
  var origin: Float {
    if case .offset(let bits) = self { Float(1 << (bits - 1)) } else { 0 }
  }

  /// Codes after which the next one begins a byte, whatever their width.
  public static let unit = 8

  /// Bytes of so many codes, the last of which may be filled in part.
  public func byteCount(_ count: Int) -> Int { count / Self.unit * bits + (count % Self.unit * bits + 7) / 8 }
}
