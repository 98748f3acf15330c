// Groups of eight values are points of a grid of -1, 0 and 1, all shifted by an eighth up or down:
// `x = d · (2s + 1) · (component ± 1/8)`.

/// 1.56 bits for each value. Eight values have eleven bits of index, the upper three in a word that 32 values
/// share with a 3-bit scale and the sign of the shift.
enum IQ1_S: BlockCodec {
  static let fields: [BlockField] = [.half, .bytes(32), .bytes(16)]

  static func decode(_ block: UnsafeRawBufferPointer, into values: UnsafeMutableBufferPointer<Float>) {
    let d = unsafe block.half(0)
    for group in 0..<32 {
      let word = unsafe Int(block.word(34 + group / 4 * 2))
      let index = unsafe (word >> (group % 4 * 3) & 7) << 8 | Int(block[2 + group])
      let scale = d * Float(2 * (word >> 12 & 7) + 1)
      unsafe BlockGrid.iq1.store(index, scale, shift: word >> 15 == 0 ? 0.125 : -0.125, values, group * 8)
    }
  }
}

/// 1.75 bits for each value. Eight values have eleven bits of index, the upper three in a nibble with the sign
/// of the shift; 16 values have a 3-bit scale. Four scales share a word with four bits of `d`.
enum IQ1_M: BlockCodec {
  static let fields: [BlockField] = [.bytes(32), .bytes(16), .bytes(8)]

  static func decode(_ block: UnsafeRawBufferPointer, into values: UnsafeMutableBufferPointer<Float>) {
    var bits: UInt16 = 0
    for word in 0..<4 { unsafe bits |= (block.word(48 + word * 2) >> 12) << (word * 4) }
    let d = Float(BinaryFormat.f16.value(bits: UInt64(bits)))
    for group in 0..<32 {
      let nibble = unsafe Int(block[32 + group / 2]) >> (group % 2 * 4)
      let index = unsafe (nibble & 7) << 8 | Int(block[group])
      let s = unsafe Int(block.word(48 + group / 8 * 2)) >> (group / 2 % 4 * 3) & 7
      let shift: Float = nibble & 8 == 0 ? 0.125 : -0.125
      unsafe BlockGrid.iq1.store(index, d * Float(2 * s + 1), shift: shift, values, group * 8)
    }
  }
}

extension BlockGrid {
  /// Stores the components of a point, shifted and then scaled, from `values[start]`.
  fileprivate func store(
    _ index: Int, _ scale: Float, shift: Float, _ values: UnsafeMutableBufferPointer<Float>, _ start: Int
  ) {
    for i in 0..<dimension {
      unsafe values[start + i] = scale * (components[index * dimension + i] + shift)
    }
  }
}
