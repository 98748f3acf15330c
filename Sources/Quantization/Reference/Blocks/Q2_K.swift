/// 16 groups of 16 values with scale and offset in a nibble each: `x = d · s · q - dmin · m`. Of each half of
/// the block, four values share a byte, 32 apart.
enum Q2_K: BlockCodec {
  static let fields: [BlockField] = [.bytes(16), .bytes(64), .half, .half]

  static func decode(_ block: UnsafeRawBufferPointer, into values: UnsafeMutableBufferPointer<Float>) {
    let d = unsafe block.half(80)
    let dmin = unsafe block.half(82)
    for group in 0..<16 {
      let scales = unsafe block[group]
      let scale = d * Float(scales & 15)
      let offset = dmin * Float(scales >> 4)
      for i in group * 16..<(group + 1) * 16 {
        let code = unsafe block[16 + i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3
        unsafe values[i] = scale * Float(code) - offset
      }
    }
  }
}
