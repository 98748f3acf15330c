/// A scale and signs: `x = ±d`, where d is the mean magnitude.
enum Q1_0: BlockEncoder {
  static let fields: [BlockField] = [.half, .bytes(16)]

  static func decode(_ block: UnsafeRawBufferPointer, into values: UnsafeMutableBufferPointer<Float>) {
    let d = unsafe block.half(0)
    for i in 0..<128 { unsafe values[i] = block[2 + i / 8] >> (i % 8) & 1 == 1 ? d : -d }
  }

  static func encode(_ values: UnsafeBufferPointer<Float>, into block: UnsafeMutableRawBufferPointer) {
    let sum: Float = unsafe values.reduce(0) { $0 + $1.magnitude }
    unsafe block.storeHalf(sum / 128, 0)
    for byte in 0..<16 {
      var signs: UInt8 = 0
      for bit in 0..<8 where unsafe values[byte * 8 + bit] >= 0 { signs |= 1 << bit }
      unsafe block[2 + byte] = signs
    }
  }
}
