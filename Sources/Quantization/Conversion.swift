import Kernels

/// A finite value that the narrower type could only hold as an infinity.
public struct Overflow: Error, Equatable {
  /// Position within the values passed.
  public var index: Int
  public var value: Double

  public init(index: Int, value: Double) {
    self.index = index
    self.value = value
  }
}

/// The overload for unsafe buffers; those read and those written must not overlap.
package func convert(
  _ values: UnsafeRawBufferPointer, from source: FloatType, to target: FloatType,
  into output: UnsafeMutableRawBufferPointer
) throws(Overflow) {
  precondition(values.count % source.byteCount == 0, "half a value")
  precondition(output.count / target.byteCount >= values.count / source.byteCount, "output too short")
  guard let from = values.baseAddress, let to = output.baseAddress else { return }
  let count = values.count / source.byteCount
  let converted = unsafe nibble_convert(from, source.kernelValue, target.kernelValue, count, to)
  if converted < count {
    throw unsafe Overflow(index: converted, value: Reference.load(values, converted, as: source))
  }
}

/// The overload for unsafe buffers; those read and those written must not overlap.
package func narrow(
  _ values: UnsafeRawBufferPointer, to target: FloatType, into output: UnsafeMutableRawBufferPointer
) throws(Overflow) {
  precondition(values.count % 8 == 0, "half a value")
  precondition(output.count / target.byteCount >= values.count / 8, "output too short")
  guard let from = values.baseAddress, let to = output.baseAddress else { return }
  let count = values.count / 8
  let narrowed = unsafe nibble_narrow(from, target.kernelValue, count, to)
  if narrowed < count {
    throw unsafe Overflow(index: narrowed, value: Reference.load(values, narrowed))
  }
}
