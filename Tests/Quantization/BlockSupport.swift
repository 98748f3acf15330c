@testable import Quantization

extension BlockType {
  /// The values of `blocks`, which are laid at an odd address.
  func decoded(_ blocks: [UInt8]) -> [Float] {
    let count = blocks.count / bytesPerBlock * valuesPerBlock
    var values = [Float](repeating: -77, count: count + 16)
    ([0] + blocks).withUnsafeBytes { bytes in
      values.withUnsafeMutableBufferPointer {
        decode(
          UnsafeRawBufferPointer(rebasing: bytes[1...]),
          into: UnsafeMutableBufferPointer(rebasing: $0[..<count]))
      }
    }
    precondition(values[count...].allSatisfy { $0 == -77 }, "values written beyond their end")
    return Array(values[..<count])
  }

  /// The blocks of `values`, which are written to an odd address.
  func encoded(_ values: [Float], rowLength: Int? = nil, importance: [Float]? = nil) throws -> [UInt8] {
    let count = values.count / valuesPerBlock * bytesPerBlock
    var blocks = [UInt8](repeating: 0xA5, count: 1 + count + 64)
    try blocks.withUnsafeMutableBytes { bytes in
      let room = UnsafeMutableRawBufferPointer(rebasing: bytes[1..<1 + count])
      try values.withUnsafeBufferPointer { values in
        guard let importance else {
          return try encode(values, rowLength: rowLength ?? values.count, importance: nil, into: room)
        }
        try importance.withUnsafeBufferPointer {
          try encode(values, rowLength: rowLength ?? values.count, importance: $0, into: room)
        }
      }
    }
    precondition(blocks[(1 + count)...].allSatisfy { $0 == 0xA5 }, "blocks written beyond their end")
    return Array(blocks[1..<1 + count])
  }

  /// The same by the codec in plain Swift.
  func decodedByCodec(_ blocks: [UInt8]) -> [Float] {
    let count = blocks.count / bytesPerBlock
    var values = [Float](repeating: 0, count: count * valuesPerBlock)
    blocks.withUnsafeBytes { bytes in
      values.withUnsafeMutableBufferPointer { values in
        for block in 0..<count {
          row.codec.decode(
            UnsafeRawBufferPointer(rebasing: bytes[block * bytesPerBlock..<(block + 1) * bytesPerBlock]),
            into: UnsafeMutableBufferPointer(
              rebasing: values[block * valuesPerBlock..<(block + 1) * valuesPerBlock]))
        }
      }
    }
    return values
  }

  /// Nil where the kind has no encoder in plain Swift.
  func encodedByCodec(_ values: [Float]) -> [UInt8]? {
    guard let codec = row.codec as? any BlockEncoder.Type else { return nil }
    let count = values.count / valuesPerBlock
    var blocks = [UInt8](repeating: 0xA5, count: count * bytesPerBlock)
    values.withUnsafeBufferPointer { values in
      blocks.withUnsafeMutableBytes { bytes in
        for block in 0..<count {
          codec.encode(
            UnsafeBufferPointer(rebasing: values[block * valuesPerBlock..<(block + 1) * valuesPerBlock]),
            into: UnsafeMutableRawBufferPointer(
              rebasing: bytes[block * bytesPerBlock..<(block + 1) * bytesPerBlock]))
        }
      }
    }
    return blocks
  }
}

extension Random {
  mutating func bytes(_ count: Int) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(count + 8)
    while bytes.count < count {
      let word = next()
      for shift in stride(from: 0, to: 64, by: 8) { bytes.append(UInt8(truncatingIfNeeded: word >> shift)) }
    }
    return Array(bytes.prefix(count))
  }
}

/// Bit patterns; all NaN are one.
func bits(_ values: [Float]) -> [UInt32] { values.map { $0.isNaN ? 0x7FC0_0000 : $0.bitPattern } }
