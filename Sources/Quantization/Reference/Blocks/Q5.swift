/// As Q4_0 with 5-bit codes, `x = d · (q - 16)`: the fifth bit of code i is bit i of the word after the scale.
enum Q5_0: WeightedBlockEncoder {
  static let fields: [BlockField] = [.half, .bytes(4), .bytes(16)]

  static func decode(_ block: UnsafeRawBufferPointer, into values: UnsafeMutableBufferPointer<Float>) {
    let d = unsafe block.half(0)
    let high = unsafe block.word32(2)
    for i in 0..<32 {
      unsafe values[i] = Float(Int(fiveBits(block, 6, high, i)) - 16) * d
    }
  }

  static func encode(_ values: UnsafeBufferPointer<Float>, into block: UnsafeMutableRawBufferPointer) {
    let scale = unsafe SignedScale(values, levels: 16)
    unsafe store(d: scale.d, m: 0, codes: values.map(scale.code), into: block)
  }

  static let codes: ClosedRange<Float> = -16...15
  static let hasOffset = false

  static func store(d: Float, m: Float, codes: [UInt8], into block: UnsafeMutableRawBufferPointer) {
    unsafe block.storeHalf(d, 0)
    unsafe storeFiveBits(block, 2, codes)
  }
}

/// As Q4_1 with 5-bit codes: `x = d · q + m`.
enum Q5_1: WeightedBlockEncoder {
  static let fields: [BlockField] = [.half, .half, .bytes(4), .bytes(16)]

  static func decode(_ block: UnsafeRawBufferPointer, into values: UnsafeMutableBufferPointer<Float>) {
    let d = unsafe block.half(0)
    let m = unsafe block.half(2)
    let high = unsafe block.word32(4)
    for i in 0..<32 {
      unsafe values[i] = Float(fiveBits(block, 8, high, i)) * d + m
    }
  }

  static func encode(_ values: UnsafeBufferPointer<Float>, into block: UnsafeMutableRawBufferPointer) {
    let scale = unsafe OffsetScale(values, largestCode: 31)
    unsafe store(d: scale.d, m: scale.m, codes: values.map(scale.code), into: block)
  }

  static let codes: ClosedRange<Float> = 0...31
  static let hasOffset = true

  static func store(d: Float, m: Float, codes: [UInt8], into block: UnsafeMutableRawBufferPointer) {
    unsafe block.storeHalf(d, 0)
    unsafe block.storeHalf(m, 2)
    unsafe storeFiveBits(block, 4, codes)
  }
}

/// Code `i` of 32: its low bits in nibbles from byte `start`, its fifth bit in `high`.
private func fiveBits(_ block: UnsafeRawBufferPointer, _ start: Int, _ high: UInt32, _ i: Int) -> UInt8 {
  let byte = unsafe block[start + i % 16]
  return (i < 16 ? byte & 15 : byte >> 4) | UInt8(high >> i & 1) << 4
}

/// Stores 32 codes: the word of fifth bits from byte `start`, then the nibbles.
private func storeFiveBits(_ block: UnsafeMutableRawBufferPointer, _ start: Int, _ codes: [UInt8]) {
  for i in 0..<20 { unsafe block[start + i] = 0 }
  for (i, code) in codes.enumerated() {
    unsafe block[start + i / 8] |= (code >> 4) << (i % 8)
    unsafe block[start + 4 + i % 16] |= (code & 15) << (i < 16 ? 0 : 4)
  }
}
