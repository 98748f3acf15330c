// Groups of eight values are points of a grid, whose components are magnitudes, and eight signs:
// `x = d · (s + 1/2) / 4 · ±component`.

/// 2.06 bits for each value. 32 values have four bytes of grid indices, then 28 bits of signs and a 4-bit scale.
enum IQ2_XXS: BlockCodec {
  static let fields: [BlockField] = [.half, .bytes(64)]

  static func decode(_ block: UnsafeRawBufferPointer, into values: UnsafeMutableBufferPointer<Float>) {
    let d = unsafe block.half(0)
    for group in 0..<8 {
      let word = unsafe block.word32(2 + group * 8 + 4)
      let scale = d * (0.5 + Float(word >> 28)) * 0.25
      for part in 0..<4 {
        let index = unsafe Int(block[2 + group * 8 + part])
        unsafe BlockGrid.iq2XXS.store(
          index, scale, GridSigns.sevenBits(word >> (7 * part)), values, group * 32 + part * 8)
      }
    }
  }
}

/// 2.31 bits for each value. Eight values have nine bits of index and seven of signs; 16 values have a nibble of
/// scale.
enum IQ2_XS: BlockCodec {
  static let fields: [BlockField] = [.half, .bytes(64), .bytes(8)]

  static func decode(_ block: UnsafeRawBufferPointer, into values: UnsafeMutableBufferPointer<Float>) {
    let d = unsafe block.half(0)
    for group in 0..<32 {
      let word = unsafe block.word(2 + group * 2)
      let s = unsafe block[66 + group / 4] >> (group / 2 % 2 * 4) & 15
      let scale = d * (0.5 + Float(s)) * 0.25
      unsafe BlockGrid.iq2XS.store(
        Int(word & 511), scale, GridSigns.sevenBits(UInt32(word >> 9)), values, group * 8)
    }
  }
}

/// 2.56 bits for each value. Eight values have ten bits of index, the upper two apart, and a byte of signs;
/// 16 values have a nibble of scale.
enum IQ2_S: BlockCodec {
  static let fields: [BlockField] = [.half, .bytes(32), .bytes(32), .bytes(8), .bytes(8)]

  static func decode(_ block: UnsafeRawBufferPointer, into values: UnsafeMutableBufferPointer<Float>) {
    let d = unsafe block.half(0)
    for group in 0..<32 {
      let high = unsafe block[66 + group / 4] >> (group % 4 * 2) & 3
      let index = unsafe Int(high) << 8 | Int(block[2 + group])
      let s = unsafe block[74 + group / 4] >> (group / 2 % 2 * 4) & 15
      let scale = d * (0.5 + Float(s)) * 0.25
      unsafe BlockGrid.iq2S.store(index, scale, block[34 + group], values, group * 8)
    }
  }
}

enum GridSigns {
  /// Eight signs of which seven are stored: the number of negative ones is even.
  static func sevenBits(_ bits: UInt32) -> UInt8 {
    let seven = UInt8(truncatingIfNeeded: bits & 127)
    return seven | UInt8(truncatingIfNeeded: seven.nonzeroBitCount % 2) << 7
  }
}

extension BlockGrid {
  /// Stores the components of a point, scaled, from `values[start]`; where `signs` has a bit set, negated.
  func store(
    _ index: Int, _ scale: Float, _ signs: UInt8, _ values: UnsafeMutableBufferPointer<Float>, _ start: Int
  ) {
    for i in 0..<dimension {
      let value = scale * components[index * dimension + i]
      unsafe values[start + i] = signs >> i & 1 == 0 ? value : -value
    }
  }
}
