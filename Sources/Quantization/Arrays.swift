extension FourBitFormat {
  /// Quantizes a whole tensor that is at hand as an array.
  ///
  /// - Returns: `packedByteCount` bytes of codes, the first of each pair in the high nibble, and one
  ///   absmax for each block.
  /// - Throws: the first value that is NaN or infinite.
  public func quantize(_ values: [Float]) throws(NonFinite) -> (codes: [UInt8], absmax: [Float]) {
    var codes = [UInt8](repeating: 0, count: packedByteCount(values.count))
    var absmax = [Float](repeating: 0, count: blockCount(values.count))
    var refused: NonFinite?
    unsafe values.withUnsafeBytes { values in
      unsafe codes.withUnsafeMutableBytes { codes in
        unsafe absmax.withUnsafeMutableBufferPointer { absmax in
          do throws(NonFinite) {
            try unsafe quantize(values, as: .f32, codes: codes, absmax: absmax)
          } catch { refused = error }
        }
      }
    }
    if let refused { throw refused }
    return (codes, absmax)
  }

  /// The values that codes stand for.
  ///
  /// - Parameters:
  ///   - codes, absmax: of one tensor, as `quantize` gives them.
  ///   - count: values of the tensor.
  public func dequantize(codes: [UInt8], absmax: [Float], count: Int) -> [Float] {
    unsafe [Float](unsafeUninitializedCapacity: count) { output, written in
      unsafe codes.withUnsafeBytes { codes in
        unsafe absmax.withUnsafeBufferPointer { absmax in
          unsafe dequantize(
            codes: codes, absmax: absmax, elements: 0..<count, into: UnsafeMutableRawBufferPointer(output), as: .f32)
        }
      }
      written = count
    }
  }
}
