/// The second level of quantization of one tensor's absmax.
@safe package final class NestedAbsmax {
  package let offset: Float
  package let codes: UnsafeMutableBufferPointer<UInt8>
  package let absmax: UnsafeMutableBufferPointer<Float>

  /// - Parameter offset: what is subtracted first; the mean, unless another is given.
  package init(_ values: UnsafeBufferPointer<Float>, offset given: Float? = nil) {
    unsafe codes = .allocate(capacity: values.count)
    let blocks = (values.count + DoubleQuantization.blockSize - 1) / DoubleQuantization.blockSize
    unsafe absmax = .allocate(capacity: blocks)
    offset = unsafe given ?? DoubleQuantization.offset(values)
    unsafe DoubleQuantization.quantize(values, offset: offset, codes: codes, nestedAbsmax: absmax)
  }

  deinit {
    unsafe codes.deallocate()
    unsafe absmax.deallocate()
  }
}
