import Bytes
import Quantization
package import Tensors

extension ValueDifference {
  /// Adds a piece of two tensors whose elements are no floating-point numbers that we read.
  ///
  /// Whole numbers have distances. All else differs or does not, bit by bit, and has none.
  ///
  /// - Parameters:
  ///   - a, b: equally many elements of `type`; those of fewer than 8 bits lie densely, lowest bits first.
  package mutating func add(_ a: RawSpan, _ b: RawSpan, as type: ElementType) {
    precondition(a.byteCount == b.byteCount, "not as many elements on both sides")
    switch type {
    case .i8: addNumbers(a, b, as: Int8.self)
    case .u8: addNumbers(a, b, as: UInt8.self)
    case .i16: addNumbers(a, b, as: Int16.self)
    case .u16: addNumbers(a, b, as: UInt16.self)
    case .i32: addNumbers(a, b, as: Int32.self)
    case .u32: addNumbers(a, b, as: UInt32.self)
    case .i64: addNumbers(a, b, as: Int64.self)
    case .u64: addNumbers(a, b, as: UInt64.self)
    case .bool, .f8e5m2, .f8e4m3, .f8e8m0, .f8e4m3fnuz, .f8e5m2fnuz: addPatterns(a, b, as: UInt8.self)
    case .f16, .bf16: addPatterns(a, b, as: UInt16.self)
    case .f32: addPatterns(a, b, as: UInt32.self)
    case .f64, .c64: addPatterns(a, b, as: UInt64.self)
    case .f4, .f6e2m3, .f6e3m2: addPacked(a, b, bits: type.bitWidth)
    }
  }

  private mutating func addNumbers<T: FixedWidthInteger & BitwiseCopyable>(
    _ a: RawSpan, _ b: RawSpan, as type: T.Type
  ) {
    let width = T.bitWidth / 8
    for offset in stride(from: 0, to: a.byteCount, by: width) {
      let x = T(littleEndian: a.load(at: offset, as: T.self))
      let y = T(littleEndian: b.load(at: offset, as: T.self))
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

  private mutating func addPatterns<T: FixedWidthInteger & BitwiseCopyable>(
    _ a: RawSpan, _ b: RawSpan, as type: T.Type
  ) {
    for offset in stride(from: 0, to: a.byteCount, by: T.bitWidth / 8) {
      let x = a.load(at: offset, as: T.self)
      let y = b.load(at: offset, as: T.self)
      addPattern(isSame: x == y)
    }
  }

  private mutating func addPacked(_ a: RawSpan, _ b: RawSpan, bits: Int) {
    let mask: UInt16 = 1 << UInt16(bits) - 1
    for index in 0..<a.byteCount * 8 / bits {
      let first = index * bits / 8
      // An element of less than a byte lies in two bytes at most.
      var changed = UInt16(a.load(at: first, as: UInt8.self) ^ b.load(at: first, as: UInt8.self))
      if first + 1 < a.byteCount {
        changed |= UInt16(a.load(at: first + 1, as: UInt8.self) ^ b.load(at: first + 1, as: UInt8.self)) << 8
      }
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
