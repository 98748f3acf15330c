/// As Q4_0 with 5-bit codes, `x = d · (q - 16)`: the fifth bit of code i is bit i of the word after the scale.
enum Q5_0: BlockEncoder {
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
    unsafe block.storeHalf(scale.d, 0)
    unsafe storeFiveBits(block, 2) { unsafe scale.code(values[$0]) }
  }
}

/// As Q4_1 with 5-bit codes: `x = d · q + m`.
enum Q5_1: BlockEncoder {
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
    unsafe block.storeHalf(scale.d, 0)
    unsafe block.storeHalf(scale.m, 2)
    unsafe storeFiveBits(block, 4) { unsafe scale.code(values[$0]) }
  }
}

/// Code `i` of 32: its low bits in nibbles from byte `start`, its fifth bit in `high`.
private func fiveBits(_ block: UnsafeRawBufferPointer, _ start: Int, _ high: UInt32, _ i: Int) -> UInt8 {
  let byte = unsafe block[start + i % 16]
  return (i < 16 ? byte & 15 : byte >> 4) | UInt8(high >> i & 1) << 4
}

/// Stores 32 codes: the word of fifth bits from byte `start`, then the nibbles.
private func storeFiveBits(_ block: UnsafeMutableRawBufferPointer, _ start: Int, _ code: (Int) -> UInt8) {
  for i in 0..<20 { unsafe block[start + i] = 0 }
  for i in 0..<32 {
    let q = code(i)
    unsafe block[start + i / 8] |= (q >> 4) << (i % 8)
    unsafe block[start + 4 + i % 16] |= (q & 15) << (i < 16 ? 0 : 4)
  }
}
