/// A kind of which every value is by itself a level times a scale, less a minimum: `x = scale · level(code) - minimum`.
protocol LevelCodec: BlockCodec {
  static var blockLevels: BlockLevels { get }

  /// What the values of a group are decoded with.
  static func factors(_ block: UnsafeRawBufferPointer, group: Int) -> (scale: Float, minimum: Float)

  /// Other codes in the place of those that are there; scales and minima stay.
  ///
  /// - Parameter codes: one for each value, counted from the lowest level.
  static func store(_ codes: UnsafeBufferPointer<UInt8>, into block: UnsafeMutableRawBufferPointer)
}

extension BlockType {
  private var levelCodec: (any LevelCodec.Type)? { row.codec as? any LevelCodec.Type }

  /// nil for kinds whose values are not each a level by itself.
  package var levels: BlockLevels? { levelCodec?.blockLevels }

  /// The scales and minima of blocks, as they are decoded.
  ///
  /// - Parameters:
  ///   - blocks: of a kind with levels.
  ///   - stride: from the numbers of a group to those of the next, at least the number of blocks.
  package func factors(of blocks: [UInt8], stride: Int) -> (scales: [Float], minima: [Float]) {
    guard let codec = levelCodec else { preconditionFailure("\(name) has no levels") }
    let groups = valuesPerBlock / codec.blockLevels.groupSize
    var scales = [Float](repeating: 0, count: groups * stride)
    var minima = scales
    let size = bytesPerBlock
    unsafe blocks.withUnsafeBytes { blocks in
      for block in 0..<blocks.count / size {
        let bytes = unsafe UnsafeRawBufferPointer(rebasing: blocks[block * size..<(block + 1) * size])
        for group in 0..<groups {
          (scales[group * stride + block], minima[group * stride + block]) = unsafe codec.factors(bytes, group: group)
        }
      }
    }
    return (scales, minima)
  }

  /// Other codes for blocks of a kind with levels.
  ///
  /// - Parameters:
  ///   - codes: counted from the lowest level; those of a block lie `stride` apart, the first of each block in order.
  ///   - blocks: with the scales that stay.
  package func store(_ codes: [UInt8], stride: Int, into blocks: inout [UInt8]) {
    guard let codec = levelCodec else { preconditionFailure("\(name) has no levels") }
    let count = valuesPerBlock
    let size = bytesPerBlock
    precondition(codes.count >= count * stride && blocks.count <= stride * size, "codes too short")
    var own = [UInt8](repeating: 0, count: count)
    unsafe blocks.withUnsafeMutableBytes { blocks in
      for block in 0..<blocks.count / size {
        for index in 0..<count { own[index] = codes[index * stride + block] }
        unsafe own.withUnsafeBufferPointer { own in
          unsafe codec.store(
            own, into: UnsafeMutableRawBufferPointer(rebasing: blocks[block * size..<(block + 1) * size]))
        }
      }
    }
  }
}

extension UnsafeMutableRawBufferPointer {
  /// The lower four bits of two codes in each byte, `apart` values from each other.
  func storeNibbles(_ codes: UnsafeBufferPointer<UInt8>, _ offset: Int, apart: Int) {
    for index in 0..<codes.count / 2 {
      let first = index / apart * 2 * apart + index % apart
      unsafe self[offset + index] = codes[first] & 15 | (codes[first + apart] & 15) << 4
    }
  }

  /// Two bits of four codes in each byte, 32 values from each other.
  func storePairs(_ codes: UnsafeBufferPointer<UInt8>, _ offset: Int, shift: UInt8) {
    for index in 0..<codes.count / 4 {
      let first = index / 32 * 128 + index % 32
      var byte: UInt8 = 0
      for part in 0..<4 { unsafe byte |= (codes[first + 32 * part] >> shift & 3) << UInt8(2 * part) }
      unsafe self[offset + index] = byte
    }
  }

  /// One bit of eight codes in each byte, `apart` values from each other.
  func storeBits(_ codes: UnsafeBufferPointer<UInt8>, _ offset: Int, bit: UInt8, apart: Int) {
    for index in 0..<codes.count / 8 {
      let first = index / apart * 8 * apart + index % apart
      var byte: UInt8 = 0
      for part in 0..<8 { unsafe byte |= (codes[first + apart * part] >> bit & 1) << UInt8(part) }
      unsafe self[offset + index] = byte
    }
  }
}
