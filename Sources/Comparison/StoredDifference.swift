import Quantization
package import Tensors

extension ValueDifference {
  /// Adds a piece of two tensors whose elements are no floating-point numbers that we read.
  ///
  /// Whole numbers have distances. All else differs or does not, bit by bit, and has none.
  ///
  /// - Parameters:
  ///   - a, b: equally many elements of `type`; those of fewer than 8 bits lie densely, lowest bits first.
  package mutating func add(_ a: UnsafeRawBufferPointer, _ b: UnsafeRawBufferPointer, as type: ElementType) {
    precondition(a.count == b.count, "not as many elements on both sides")
    switch type {
    case .i8: unsafe addNumbers(a, b, as: Int8.self)
    case .u8: unsafe addNumbers(a, b, as: UInt8.self)
    case .i16: unsafe addNumbers(a, b, as: Int16.self)
    case .u16: unsafe addNumbers(a, b, as: UInt16.self)
    case .i32: unsafe addNumbers(a, b, as: Int32.self)
    case .u32: unsafe addNumbers(a, b, as: UInt32.self)
    case .i64: unsafe addNumbers(a, b, as: Int64.self)
    case .u64: unsafe addNumbers(a, b, as: UInt64.self)
    case .bool, .f8e5m2, .f8e4m3, .f8e8m0, .f8e4m3fnuz, .f8e5m2fnuz: unsafe addPatterns(a, b, as: UInt8.self)
    case .f16, .bf16: unsafe addPatterns(a, b, as: UInt16.self)
    case .f32: unsafe addPatterns(a, b, as: UInt32.self)
    case .f64, .c64: unsafe addPatterns(a, b, as: UInt64.self)
    case .f4, .f6e2m3, .f6e3m2: unsafe addPacked(a, b, bits: type.bitWidth)
    }
  }

  private mutating func addNumbers<T: FixedWidthInteger>(
    _ a: UnsafeRawBufferPointer, _ b: UnsafeRawBufferPointer, as type: T.Type
  ) {
    let width = T.bitWidth / 8
    for offset in stride(from: 0, to: a.count, by: width) {
      let x = unsafe T(littleEndian: a.loadUnaligned(fromByteOffset: offset, as: T.self))
      let y = unsafe T(littleEndian: b.loadUnaligned(fromByteOffset: offset, as: T.self))
      count += 1
      referenceSumOfSquares += Double(x) * Double(x)
      if x == y { continue }
      differing += 1
      // The difference of any two numbers fits the unsigned type, whatever wraps on the way to it.
      let distance = Double(T.Magnitude(truncatingIfNeeded: x > y ? x &- y : y &- x))
      largest = max(largest, distance)
      sumOfSquares += distance * distance
    }
  }

  private mutating func addPatterns<T: FixedWidthInteger>(
    _ a: UnsafeRawBufferPointer, _ b: UnsafeRawBufferPointer, as type: T.Type
  ) {
    for offset in stride(from: 0, to: a.count, by: T.bitWidth / 8) {
      let x = unsafe a.loadUnaligned(fromByteOffset: offset, as: T.self)
      let y = unsafe b.loadUnaligned(fromByteOffset: offset, as: T.self)
      addPattern(isSame: x == y)
    }
  }

  private mutating func addPacked(_ a: UnsafeRawBufferPointer, _ b: UnsafeRawBufferPointer, bits: Int) {
    let mask: UInt16 = 1 << UInt16(bits) - 1
    for index in 0..<a.count * 8 / bits {
      let first = index * bits / 8
      // An element of less than a byte lies in two bytes at most.
      var changed = unsafe UInt16(a[first] ^ b[first])
      if first + 1 < a.count { changed |= unsafe UInt16(a[first + 1] ^ b[first + 1]) << 8 }
      addPattern(isSame: changed >> UInt16(index * bits % 8) & mask == 0)
    }
  }

  private mutating func addPattern(isSame: Bool) {
    count += 1
    if isSame { return }
    differing += 1
    undefined += 1
  }
}
