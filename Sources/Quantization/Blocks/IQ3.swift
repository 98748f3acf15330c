// Groups of four values are points of a grid, whose components are magnitudes, with signs apart.

/// 3.06 bits for each value, `x = d · (s + 1/2) / 2 · ±component`. All grid indices come first; then, for
/// 32 values, 28 bits of signs and a 4-bit scale.
enum IQ3_XXS: BlockCodec {
  static let fields: [BlockField] = [.half, .bytes(64), .bytes(32)]

  static func decode(_ block: UnsafeRawBufferPointer, into values: UnsafeMutableBufferPointer<Float>) {
    let d = unsafe block.half(0)
    for group in 0..<8 {
      let word = unsafe block.word32(66 + group * 4)
      let scale = d * (0.5 + Float(word >> 28)) * 0.5
      for part in 0..<8 {
        let index = unsafe Int(block[2 + group * 8 + part])
        let signs = GridSigns.sevenBits(word >> (7 * (part / 2))) >> (part % 2 * 4)
        unsafe BlockGrid.iq3XXS.store(index, scale, signs, values, group * 32 + part * 4)
      }
    }
  }
}

/// 3.44 bits for each value, `x = d · (2s + 1) · ±component`. Four values have nine bits of index, the highest
/// apart, and four of signs; 32 values have a nibble of scale.
enum IQ3_S: BlockCodec {
  static let fields: [BlockField] = [.half, .bytes(64), .bytes(8), .bytes(32), .bytes(4)]

  static func decode(_ block: UnsafeRawBufferPointer, into values: UnsafeMutableBufferPointer<Float>) {
    let d = unsafe block.half(0)
    for group in 0..<64 {
      let high = unsafe block[66 + group / 8] >> (group % 8) & 1
      let index = unsafe Int(high) << 8 | Int(block[2 + group])
      let signs = unsafe block[74 + group / 2] >> (group % 2 * 4)
      let s = unsafe block[106 + group / 16] >> (group / 8 % 2 * 4) & 15
      unsafe BlockGrid.iq3S.store(index, d * Float(1 + 2 * Int(s)), signs, values, group * 4)
    }
  }
}
