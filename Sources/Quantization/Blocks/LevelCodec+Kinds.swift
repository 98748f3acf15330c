extension Q4_0: LevelCodec {
  static let blockLevels = BlockLevels(-8...7, groupSize: 32)

  static func factors(_ block: UnsafeRawBufferPointer, group: Int) -> (scale: Float, minimum: Float) {
    unsafe (block.half(0), 0)
  }

  static func store(_ codes: UnsafeBufferPointer<UInt8>, into block: UnsafeMutableRawBufferPointer) {
    unsafe block.storeNibbles(codes, 2, apart: 16)
  }
}

extension Q4_1: LevelCodec {
  static let blockLevels = BlockLevels(0...15, groupSize: 32)

  static func factors(_ block: UnsafeRawBufferPointer, group: Int) -> (scale: Float, minimum: Float) {
    unsafe (block.half(0), -block.half(2))
  }

  static func store(_ codes: UnsafeBufferPointer<UInt8>, into block: UnsafeMutableRawBufferPointer) {
    unsafe block.storeNibbles(codes, 4, apart: 16)
  }
}

extension Q5_0: LevelCodec {
  static let blockLevels = BlockLevels(-16...15, groupSize: 32)

  static func factors(_ block: UnsafeRawBufferPointer, group: Int) -> (scale: Float, minimum: Float) {
    unsafe (block.half(0), 0)
  }

  static func store(_ codes: UnsafeBufferPointer<UInt8>, into block: UnsafeMutableRawBufferPointer) {
    unsafe block.storeBits(codes, 2, bit: 4, apart: 1)
    unsafe block.storeNibbles(codes, 6, apart: 16)
  }
}

extension Q5_1: LevelCodec {
  static let blockLevels = BlockLevels(0...31, groupSize: 32)

  static func factors(_ block: UnsafeRawBufferPointer, group: Int) -> (scale: Float, minimum: Float) {
    unsafe (block.half(0), -block.half(2))
  }

  static func store(_ codes: UnsafeBufferPointer<UInt8>, into block: UnsafeMutableRawBufferPointer) {
    unsafe block.storeBits(codes, 4, bit: 4, apart: 1)
    unsafe block.storeNibbles(codes, 8, apart: 16)
  }
}

extension Q8_0: LevelCodec {
  /// As its encoder, which is symmetric.
  static let blockLevels = BlockLevels(-127...127, groupSize: 32)

  static func factors(_ block: UnsafeRawBufferPointer, group: Int) -> (scale: Float, minimum: Float) {
    unsafe (block.half(0), 0)
  }

  static func store(_ codes: UnsafeBufferPointer<UInt8>, into block: UnsafeMutableRawBufferPointer) {
    for index in codes.indices { unsafe block[2 + index] = codes[index] &- 127 }
  }
}

extension Q2_K: LevelCodec {
  static let blockLevels = BlockLevels(0...3, groupSize: 16)

  static func factors(_ block: UnsafeRawBufferPointer, group: Int) -> (scale: Float, minimum: Float) {
    let multiples = unsafe block[group]
    return unsafe (block.half(80) * Float(multiples & 15), block.half(82) * Float(multiples >> 4))
  }

  static func store(_ codes: UnsafeBufferPointer<UInt8>, into block: UnsafeMutableRawBufferPointer) {
    unsafe block.storePairs(codes, 16, shift: 0)
  }
}

extension Q3_K: LevelCodec {
  static let blockLevels = BlockLevels(-4...3, groupSize: 16)

  static func factors(_ block: UnsafeRawBufferPointer, group: Int) -> (scale: Float, minimum: Float) {
    let low = unsafe block[96 + group % 8] >> (group < 8 ? 0 : 4) & 15
    let high = unsafe block[104 + group % 4] >> (group / 4 * 2) & 3
    return unsafe (block.half(108) * Float(Int(high << 4 | low) - 32), 0)
  }

  static func store(_ codes: UnsafeBufferPointer<UInt8>, into block: UnsafeMutableRawBufferPointer) {
    unsafe block.storeBits(codes, 0, bit: 2, apart: 32)
    unsafe block.storePairs(codes, 32, shift: 0)
  }
}

extension Q4_K: LevelCodec {
  static let blockLevels = BlockLevels(0...15, groupSize: 32)

  static func factors(_ block: UnsafeRawBufferPointer, group: Int) -> (scale: Float, minimum: Float) {
    let (scale, minimum) = unsafe SixBitScales.decode(block, group)
    return (scale, minimum)
  }

  static func store(_ codes: UnsafeBufferPointer<UInt8>, into block: UnsafeMutableRawBufferPointer) {
    unsafe block.storeNibbles(codes, 16, apart: 32)
  }
}

extension Q5_K: LevelCodec {
  static let blockLevels = BlockLevels(0...31, groupSize: 32)

  static func factors(_ block: UnsafeRawBufferPointer, group: Int) -> (scale: Float, minimum: Float) {
    let (scale, minimum) = unsafe SixBitScales.decode(block, group)
    return (scale, minimum)
  }

  static func store(_ codes: UnsafeBufferPointer<UInt8>, into block: UnsafeMutableRawBufferPointer) {
    unsafe block.storeBits(codes, 16, bit: 4, apart: 32)
    unsafe block.storeNibbles(codes, 48, apart: 32)
  }
}

extension Q6_K: LevelCodec {
  static let blockLevels = BlockLevels(-32...31, groupSize: 16)

  static func factors(_ block: UnsafeRawBufferPointer, group: Int) -> (scale: Float, minimum: Float) {
    unsafe (block.half(208) * Float(Int8(bitPattern: block[192 + group])), 0)
  }

  static func store(_ codes: UnsafeBufferPointer<UInt8>, into block: UnsafeMutableRawBufferPointer) {
    unsafe block.storeNibbles(codes, 0, apart: 64)
    unsafe block.storePairs(codes, 128, shift: 4)
  }
}

extension IQ4_NL: LevelCodec {
  static let blockLevels = BlockLevels(levels, groupSize: 32)

  static func factors(_ block: UnsafeRawBufferPointer, group: Int) -> (scale: Float, minimum: Float) {
    unsafe (block.half(0), 0)
  }

  static func store(_ codes: UnsafeBufferPointer<UInt8>, into block: UnsafeMutableRawBufferPointer) {
    unsafe block.storeNibbles(codes, 2, apart: 16)
  }
}

extension IQ4_XS: LevelCodec {
  static let blockLevels = IQ4_NL.blockLevels

  static func factors(_ block: UnsafeRawBufferPointer, group: Int) -> (scale: Float, minimum: Float) {
    let high = unsafe block.word(2)
    let low = unsafe block[4 + group / 2] >> (group % 2 * 4) & 15
    return unsafe (block.half(0) * Float(Int(high >> (group * 2) & 3) << 4 + Int(low) - 32), 0)
  }

  static func store(_ codes: UnsafeBufferPointer<UInt8>, into block: UnsafeMutableRawBufferPointer) {
    unsafe block.storeNibbles(codes, 8, apart: 16)
  }
}
