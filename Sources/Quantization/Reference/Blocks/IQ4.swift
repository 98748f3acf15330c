/// 4-bit codes for uneven levels: `x = d · level(q)`. Codes i and i + 16 share byte i, the first in the low
/// nibble.
enum IQ4_NL: BlockCodec {
  static let fields: [BlockField] = [.half, .bytes(16)]

  /// Denser around zero, as weights are.
  static let levels: [Float] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]

  static func decode(_ block: UnsafeRawBufferPointer, into values: UnsafeMutableBufferPointer<Float>) {
    let d = unsafe block.half(0)
    for i in 0..<16 {
      let byte = unsafe block[2 + i]
      unsafe values[i] = d * levels[Int(byte & 15)]
      unsafe values[i + 16] = d * levels[Int(byte >> 4)]
    }
  }
}

/// 8 groups of 32 values, coded as in IQ4_NL, with 6-bit scales: `x = d · (s - 32) · level(q)`. Two bits of
/// each scale lie in the word after `d`, the lower four in nibbles after it.
enum IQ4_XS: BlockCodec {
  static let fields: [BlockField] = [.half, .bytes(2), .bytes(4), .bytes(128)]

  static func decode(_ block: UnsafeRawBufferPointer, into values: UnsafeMutableBufferPointer<Float>) {
    let d = unsafe block.half(0)
    let high = unsafe block.word(2)
    for group in 0..<8 {
      let low = unsafe block[4 + group / 2] >> (group % 2 * 4) & 15
      let scale = d * Float(Int(high >> (group * 2) & 3) << 4 + Int(low) - 32)
      for i in 0..<16 {
        let byte = unsafe block[8 + group * 16 + i]
        unsafe values[group * 32 + i] = scale * IQ4_NL.levels[Int(byte & 15)]
        unsafe values[group * 32 + i + 16] = scale * IQ4_NL.levels[Int(byte >> 4)]
      }
    }
  }
}
