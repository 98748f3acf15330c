/// A signed scale and 4-bit codes: `x = d · (q - 8)`. Codes i and i + 16 share byte i, the first in the low
/// nibble.
enum Q4_0: BlockEncoder {
  static let fields: [BlockField] = [.half, .bytes(16)]

  static func decode(_ block: UnsafeRawBufferPointer, into values: UnsafeMutableBufferPointer<Float>) {
    let d = unsafe block.half(0)
    for i in 0..<16 {
      let byte = unsafe block[2 + i]
      unsafe values[i] = Float(Int(byte & 15) - 8) * d
      unsafe values[i + 16] = Float(Int(byte >> 4) - 8) * d
    }
  }

  static func encode(_ values: UnsafeBufferPointer<Float>, into block: UnsafeMutableRawBufferPointer) {
    let scale = unsafe SignedScale(values, levels: 8)
    unsafe block.storeHalf(scale.d, 0)
    for i in 0..<16 {
      unsafe block[2 + i] = scale.code(values[i]) | scale.code(values[i + 16]) << 4
    }
  }
}

/// A scale, an offset and 4-bit codes: `x = d · q + m`.
enum Q4_1: BlockEncoder {
  static let fields: [BlockField] = [.half, .half, .bytes(16)]

  static func decode(_ block: UnsafeRawBufferPointer, into values: UnsafeMutableBufferPointer<Float>) {
    let d = unsafe block.half(0)
    let m = unsafe block.half(2)
    for i in 0..<16 {
      let byte = unsafe block[4 + i]
      unsafe values[i] = Float(byte & 15) * d + m
      unsafe values[i + 16] = Float(byte >> 4) * d + m
    }
  }

  static func encode(_ values: UnsafeBufferPointer<Float>, into block: UnsafeMutableRawBufferPointer) {
    let scale = unsafe OffsetScale(values, largestCode: 15)
    unsafe block.storeHalf(scale.d, 0)
    unsafe block.storeHalf(scale.m, 2)
    for i in 0..<16 {
      unsafe block[4 + i] = scale.code(values[i]) | scale.code(values[i + 16]) << 4
    }
  }
}
