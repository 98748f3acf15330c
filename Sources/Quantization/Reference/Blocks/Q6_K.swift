/// 16 groups of 16 values with 8-bit scales: `x = d · s · (q - 32)`. Of each half of the block, the lower four
/// bits of values i and i + 64 share byte i, and the upper two bits of four values share a byte, 32 apart.
enum Q6_K: BlockCodec {
  static let fields: [BlockField] = [.bytes(128), .bytes(64), .bytes(16), .half]

  static func decode(_ block: UnsafeRawBufferPointer, into values: UnsafeMutableBufferPointer<Float>) {
    let d = unsafe block.half(208)
    for i in 0..<256 {
      let half = i / 128
      let byte = unsafe block[half * 64 + i % 64]
      let low = i % 128 < 64 ? byte & 15 : byte >> 4
      let high = unsafe block[128 + half * 32 + i % 32] >> (i / 32 % 4 * 2) & 3
      let scale = unsafe d * Float(Int8(bitPattern: block[192 + i / 16]))
      unsafe values[i] = scale * Float(Int(high << 4 | low) - 32)
    }
  }
}
