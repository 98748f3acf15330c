/// The four-bit numbers of the OCP microscaling formats, doubled, so that they are whole: sign, two bits of
/// exponent, one of mantissa.
enum FloatE2M1 {
  static let levels: [Float] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12]

  /// The code whose level times `d` is nearest to `value`; the first of equally near ones.
  static func code(_ value: Float, _ d: Float) -> UInt8 {
    var best: UInt8 = 0
    var least = (levels[0] * d - value).magnitude
    for code in UInt8(1)..<16 {
      let error = (levels[Int(code)] * d - value).magnitude
      if error < least {
        best = code
        least = error
      }
    }
    return best
  }
}

/// The exponent of a power of two and four-bit numbers: `x = 2^(e - 128) · level(q)`. Codes i and i + 16 share
/// byte i, the first in the low nibble.
enum MXFP4: BlockEncoder {
  static let fields: [BlockField] = [.bytes(1), .bytes(16)]

  static func decode(_ block: UnsafeRawBufferPointer, into values: UnsafeMutableBufferPointer<Float>) {
    let d = unsafe scale(block[0])
    for i in 0..<16 {
      let byte = unsafe block[1 + i]
      unsafe values[i] = FloatE2M1.levels[Int(byte & 15)] * d
      unsafe values[i + 16] = FloatE2M1.levels[Int(byte >> 4)] * d
    }
  }

  static func encode(_ values: UnsafeBufferPointer<Float>, into block: UnsafeMutableRawBufferPointer) {
    let exponent = unsafe exponent(values.reduce(0) { max($0, $1.magnitude) })
    let d = scale(exponent)
    unsafe block[0] = exponent
    for i in 0..<16 {
      unsafe block[1 + i] = FloatE2M1.code(values[i], d) | FloatE2M1.code(values[i + 16], d) << 4
    }
  }

  private static func scale(_ exponent: UInt8) -> Float {
    exponent == 0 ? 0x1p-128 : Float(sign: .plus, exponent: Int(exponent) - 128, significand: 1)
  }

  /// The logarithm of the largest magnitude, rounded down, less two: that of the largest level.
  ///
  /// ggml takes the logarithm in 32 bits, where one just below a whole number is rounded up to it. Below
  /// 2^-125 what it does is not defined; here the exponent stays at its least.
  private static func exponent(_ largest: Float) -> UInt8 {
    guard largest >= 0x1p-125 else { return 0 }
    let whole = Int(largest.exponent)
    let next = whole + 1
    // Half the distance from `next` to the logarithm's 32-bit neighbour below.
    let magnitude = next > 0 ? next - 1 : -next
    let unit = magnitude == 0 ? -200 : (Int.bitWidth - 1 - magnitude.leadingZeroBitCount) - 24
    let below = Double(2 - largest.significand) / 2
    let isRoundedUp = below * 1.4426950408889634 < Double(sign: .plus, exponent: unit, significand: 1)
    return UInt8((isRoundedUp ? next : whole) + 125)
  }
}
