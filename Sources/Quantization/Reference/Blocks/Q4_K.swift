/// 8 groups of 32 values with scale and offset in 6 bits each: `x = d · s · q - dmin · m`. Groups of one pair
/// share their bytes, the first in the low nibbles.
enum Q4_K: BlockCodec {
  static let fields: [BlockField] = [.half, .half, .bytes(12), .bytes(128)]

  static func decode(_ block: UnsafeRawBufferPointer, into values: UnsafeMutableBufferPointer<Float>) {
    for group in 0..<8 {
      let (scale, offset) = unsafe SixBitScales.decode(block, group)
      for i in 0..<32 {
        let byte = unsafe block[16 + group / 2 * 32 + i]
        let code = group % 2 == 0 ? byte & 15 : byte >> 4
        unsafe values[group * 32 + i] = scale * Float(code) - offset
      }
    }
  }
}

/// As Q4_K with 5-bit codes: the fifth bit of value i is bit i / 32 of byte i % 32.
enum Q5_K: BlockCodec {
  static let fields: [BlockField] = [.half, .half, .bytes(12), .bytes(32), .bytes(128)]

  static func decode(_ block: UnsafeRawBufferPointer, into values: UnsafeMutableBufferPointer<Float>) {
    for group in 0..<8 {
      let (scale, offset) = unsafe SixBitScales.decode(block, group)
      for i in 0..<32 {
        let byte = unsafe block[48 + group / 2 * 32 + i]
        let fifth = unsafe block[16 + i] >> group & 1
        let code = (group % 2 == 0 ? byte & 15 : byte >> 4) | fifth << 4
        unsafe values[group * 32 + i] = scale * Float(code) - offset
      }
    }
  }
}

/// The scales and offsets of Q4_K and Q5_K: the first four groups have theirs in the low six bits of a byte,
/// whose upper two bits complete the nibbles of the others.
enum SixBitScales {
  static func decode(_ block: UnsafeRawBufferPointer, _ group: Int) -> (scale: Float, offset: Float) {
    func byte(_ i: Int) -> UInt8 { unsafe block[4 + i] }
    let scale: UInt8
    let offset: UInt8
    if group < 4 {
      scale = byte(group) & 63
      offset = byte(group + 4) & 63
    } else {
      scale = byte(group + 4) & 15 | (byte(group - 4) >> 6) << 4
      offset = byte(group + 4) >> 4 | (byte(group) >> 6) << 4
    }
    return unsafe (block.half(0) * Float(scale), block.half(2) * Float(offset))
  }
}
