/// 4 groups of 16 values, each with a scale in an unsigned 8-bit floating point (4 bits of exponent, 3 of
/// mantissa) and four-bit numbers: `x = scale / 2 · level(q)`. Codes i and i + 8 of a group share a byte.
enum NVFP4: BlockEncoder {
  static let fields: [BlockField] = [.bytes(4), .bytes(32)]

  static func decode(_ block: UnsafeRawBufferPointer, into values: UnsafeMutableBufferPointer<Float>) {
    for group in 0..<4 {
      let d = unsafe scale(block[group])
      for i in 0..<8 {
        let byte = unsafe block[4 + group * 8 + i]
        unsafe values[group * 16 + i] = FloatE2M1.levels[Int(byte & 15)] * d
        unsafe values[group * 16 + i + 8] = FloatE2M1.levels[Int(byte >> 4)] * d
      }
    }
  }

  /// As with ggml a scale of 256 or more becomes the largest, 448. Values beyond 2688 are cut down to that, and
  /// far beyond, where 32 bits no longer tell the levels apart, become zero.
  static func encode(_ values: UnsafeBufferPointer<Float>, into block: UnsafeMutableRawBufferPointer) {
    for group in 0..<4 {
      let range = group * 16..<(group + 1) * 16
      let largest: Float = range.reduce(0) { unsafe max($0, values[$1].magnitude) }
      let bits = scaleBits(largest / 6)
      let d = scale(bits)
      unsafe block[group] = bits
      for i in 0..<8 {
        let low = unsafe FloatE2M1.code(values[group * 16 + i], d)
        let high = unsafe FloatE2M1.code(values[group * 16 + i + 8], d)
        unsafe block[4 + group * 8 + i] = low | high << 4
      }
    }
  }

  /// Half of what the bits stand for, as the levels are doubled. Seven ones are no number, and taken for zero;
  /// the eighth bit is not used.
  private static func scale(_ bits: UInt8) -> Float {
    if bits == 0x7F { return 0 }
    let exponent = Int(bits >> 3 & 15)
    let fraction = Float(bits & 7)
    if exponent == 0 { return fraction * 0x1p-10 }
    return (1 + fraction / 8) * Float(sign: .plus, exponent: exponent - 8, significand: 1)
  }

  /// The nearest scale below 256, halves rounded up.
  private static func scaleBits(_ value: Float) -> UInt8 {
    guard value > 0 else { return 0 }
    let value = min(value, 448)
    let exponent = Int(value.exponent) + 7
    if exponent <= 0 { return UInt8(min(value * 512 + 0.5, 7)) }
    let fraction = Int(value.significandBitPattern >> 20)
    let bits = exponent << 3 + fraction + Int(value.significandBitPattern >> 19 & 1)
    return bits < 15 << 3 ? UInt8(bits) : 0x7E
  }
}
