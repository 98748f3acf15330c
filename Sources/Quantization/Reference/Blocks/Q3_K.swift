/// 16 groups of 16 values with 6-bit scales: `x = d · (s - 32) · (q - 4)`. The third bit of value i is bit
/// i / 32 of byte i % 32; the lower two lie as in Q2_K. The scales' lower four bits come first, in nibbles,
/// then the upper two.
enum Q3_K: BlockCodec {
  static let fields: [BlockField] = [.bytes(32), .bytes(64), .bytes(12), .half]

  static func decode(_ block: UnsafeRawBufferPointer, into values: UnsafeMutableBufferPointer<Float>) {
    let d = unsafe block.half(108)
    for group in 0..<16 {
      let low = unsafe block[96 + group % 8] >> (group < 8 ? 0 : 4) & 15
      let high = unsafe block[104 + group % 4] >> (group / 4 * 2) & 3
      let scale = d * Float(Int(high << 4 | low) - 32)
      for i in group * 16..<(group + 1) * 16 {
        let code = unsafe block[32 + i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3
        let third = unsafe block[i % 32] >> (i / 32) & 1
        unsafe values[i] = scale * Float(Int(third << 2 | code) - 4)
      }
    }
  }
}
