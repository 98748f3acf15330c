/// The second level of quantization of one tensor's absmax.
package struct NestedAbsmax {
  package let offset: Float
  package let codes: [UInt8]
  package let absmax: [Float]

  /// - Parameter offset: what is subtracted first; the mean, unless another is given.
  package init(_ values: Span<Float>, offset given: Float? = nil) {
    var codes = [UInt8](repeating: 0, count: values.count)
    var absmax = [Float](repeating: 0, count: DoubleQuantization.blockCount(values.count))
    var codeSpan = codes.mutableSpan
    var absmaxSpan = absmax.mutableSpan
    offset = given ?? DoubleQuantization.offset(values)
    DoubleQuantization.quantize(values, offset: offset, codes: &codeSpan, nestedAbsmax: &absmaxSpan)
    self.codes = codes
    self.absmax = absmax
  }
}
