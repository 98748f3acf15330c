/// A scale and 2-bit codes: `x = d · (q - 1)`. Four consecutive values share a byte, the first in the lowest
/// bits.
enum Q2_0: BlockEncoder {
  static let fields: [BlockField] = [.half, .bytes(16)]

  static func decode(_ block: UnsafeRawBufferPointer, into values: UnsafeMutableBufferPointer<Float>) {
    let d = unsafe block.half(0)
    for i in 0..<64 {
      unsafe values[i] = Float(Int(block[2 + i / 4] >> (i % 4 * 2) & 3) - 1) * d
    }
  }

  /// The scale is the largest magnitude, so that the code 3, of twice the scale, is not used.
  static func encode(_ values: UnsafeBufferPointer<Float>, into block: UnsafeMutableRawBufferPointer) {
    let d = unsafe values.reduce(0) { max($0, $1.magnitude) }
    let inverse = d > 0 ? 1 / d : 0
    unsafe block.storeHalf(d, 0)
    for byte in 0..<16 {
      var codes: UInt8 = 0
      for part in 0..<4 {
        let scaled = unsafe (values[byte * 4 + part] * inverse).rounded(.toNearestOrAwayFromZero)
        // Where the scale is so small that its reciprocal is infinite, it is stored as zero.
        codes |= (scaled.isFinite ? UInt8(scaled + 1) : 0) << (part * 2)
      }
      unsafe block[2 + byte] = codes
    }
  }
}
