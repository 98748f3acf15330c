/// One kind of block in plain Swift. Where the kind has kernels they compute the same, bit for bit.
protocol BlockCodec {
  /// The fields of a block, in order and without gaps.
  static var fields: [BlockField] { get }

  /// Any bytes are a block.
  ///
  /// - Parameters:
  ///   - block: the bytes of one block, at any alignment.
  ///   - values: room for the values of one block.
  static func decode(_ block: UnsafeRawBufferPointer, into values: UnsafeMutableBufferPointer<Float>)
}

/// A kind that can be encoded block by block.
protocol BlockEncoder: BlockCodec {
  /// - Parameters:
  ///   - values: finite, those of one block.
  ///   - block: room for one block.
  static func encode(_ values: UnsafeBufferPointer<Float>, into block: UnsafeMutableRawBufferPointer)
}

enum BlockField {
  /// A scale or an offset in 16-bit floating point.
  case half
  case bytes(Int)

  var byteCount: Int {
    switch self {
    case .half: 2
    case .bytes(let count): count
    }
  }
}

extension BlockCodec {
  /// Where in a block the 16-bit floating point numbers are.
  static var halves: [Int] {
    var offset = 0
    var found: [Int] = []
    for field in fields {
      if case .half = field { found.append(offset) }
      offset += field.byteCount
    }
    return found
  }
}

extension UnsafeRawBufferPointer {
  /// The 16-bit floating point number at a byte offset.
  func half(_ offset: Int) -> Float {
    unsafe Float(BinaryFormat.f16.value(bits: UInt64(word(offset))))
  }

  func word(_ offset: Int) -> UInt16 {
    unsafe UInt16(littleEndian: loadUnaligned(fromByteOffset: offset, as: UInt16.self))
  }

  func word32(_ offset: Int) -> UInt32 {
    unsafe UInt32(littleEndian: loadUnaligned(fromByteOffset: offset, as: UInt32.self))
  }
}

extension UnsafeMutableRawBufferPointer {
  /// Stores `value`, rounded to nearest even, as 16-bit floating point.
  func storeHalf(_ value: Float, _ offset: Int) {
    let bits = UInt16(truncatingIfNeeded: BinaryFormat.f16.bits(rounding: Double(value)))
    unsafe storeBytes(of: bits.littleEndian, toByteOffset: offset, as: UInt16.self)
  }
}
