extension Reference {
  /// See `ValueDifference.add`.
  package static func difference(
    _ a: UnsafeRawBufferPointer, as aType: RealType, _ b: UnsafeRawBufferPointer, as bType: RealType
  ) -> ValueDifference {
    var result = ValueDifference()
    var squares = [Double](repeating: 0, count: ValueStatistics.lanes)
    var references = squares
    result.count = a.count / aType.byteCount
    let isWide = aType == .f64 || bType == .f64
    for index in 0..<result.count {
      let x = unsafe load(a, index, as: aType)
      let y = unsafe load(b, index, as: bType)
      var isSame = x == y
      if x.isNaN, y.isNaN {
        isSame =
          isWide
          ? x.bitPattern == y.bitPattern
          : unsafe nanBits(a, index, as: aType) == nanBits(b, index, as: bType)
      }
      if !isSame { result.differing += 1 }
      guard x.isFinite, y.isFinite else {
        if !isSame { result.undefined += 1 }
        continue
      }
      let distance = y - x
      result.largest = max(result.largest, abs(distance))
      squares[index % ValueStatistics.lanes] += distance * distance
      references[index % ValueStatistics.lanes] += x * x
    }
    result.sumOfSquares = total(squares)
    result.referenceSumOfSquares = total(references)
    return result
  }

  private static func load(_ values: UnsafeRawBufferPointer, _ index: Int, as type: RealType) -> Double {
    if let narrow = type.narrow { return unsafe load(values, index, as: narrow) }
    return unsafe load(values, index)
  }

  /// A NaN's bits in 32-bit floating point, where one that is signalling stays so.
  private static func nanBits(_ values: UnsafeRawBufferPointer, _ index: Int, as type: RealType) -> UInt32 {
    let offset = index * type.byteCount
    if type == .f32 {
      return unsafe UInt32(littleEndian: values.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
    }
    let half = unsafe UInt32(UInt16(littleEndian: values.loadUnaligned(fromByteOffset: offset, as: UInt16.self)))
    return type == .bf16 ? half << 16 : (half & 0x8000) << 16 | 0x7F80_0000 | (half & 0x3FF) << 13
  }
}
