import Kernels

extension ScaledFormat {
  /// Quantizes whole rows of a matrix, byte for byte as compressed-tensors 0.20.1 does on the CPU, but
  /// for `nearestMXFP4`.
  ///
  /// One case differs: in float16 compressed-tensors gives an MXFP4 group whose largest magnitude is below 2^-14 the scale
  /// 1, and loses its values; here scales have the range of their bytes.
  ///
  /// - Parameters:
  ///   - values: rows of `type`; where blocks have several rows, from the first of a block on.
  ///   - columns: values of a row, which the format holds.
  ///   - globalScale: of NVFP4, `globalScale(largest:as:)`; of no account for the others.
  ///   - codes: room for `bits` of each value. The first of two codes of 4 bits is in the low half of a byte.
  ///   - scales: room for a scale of each block, row by row.
  /// - Throws: the first value that is NaN or infinite, of the first block that has one. The outputs are then
  ///   unspecified.
  public func quantize(
    _ values: RawSpan, as type: FloatType, columns: Int, globalScale: Float, codes: inout MutableRawSpan,
    scales: inout MutableRawSpan
  ) throws(NonFinite) {
    let count = values.byteCount / type.byteCount
    guard count > 0 else { return }
    precondition(columns > 0 && values.byteCount % (columns * type.byteCount) == 0, "part of a row")
    precondition(holds(columns: columns), "part of a group")
    let rows = count / columns
    let shape = scaleShape(rows: rows, columns: columns)
    precondition(codes.byteCount >= count / 8 * bits + count % 8 * bits / 8, "codes too short")
    precondition(scales.byteCount >= shape.rows * shape.columns * scaleByteCount(as: type), "scales too short")
    let done = unsafe values.withUnsafeBytes { values in
      unsafe codes.withUnsafeMutableBytes { codes in
        unsafe scales.withUnsafeMutableBytes { scales in
          unsafe nibble_quantize_scaled(
            values.baseAddress, type.kernelValue, rows, columns, blockRows, blockColumns ?? columns, kind.kernelValue,
            globalScale, codes.assumingMemoryBound(to: UInt8.self).baseAddress, scales.baseAddress)
        }
      }
    }
    guard done == count else {
      // The kernel names the start of the part of a row in which it is.
      let part = done..<min(done + (blockColumns ?? columns), count)
      throw unsafe values.withUnsafeBytes { unsafe Reference.refused(group: part, of: $0, as: type) }
    }
  }

  /// The largest magnitude of values; infinite or NaN where one of them is.
  public static func largestMagnitude(_ values: RawSpan, as type: FloatType) -> Float {
    let count = values.byteCount / type.byteCount
    guard count > 0 else { return 0 }
    return unsafe values.withUnsafeBytes {
      unsafe Float(bitPattern: nibble_largest_magnitude($0.baseAddress, type.kernelValue, count))
    }
  }
}

extension ScaledFormat.Kind {
  /// The value of `nibble_scaled_format` in the kernels' header.
  var kernelValue: Int32 {
    switch self {
    case .fp8: 0
    case .int4: 1
    case .mxfp4: 2
    case .nvfp4: 3
    case .nearestMXFP4: 4
    }
  }
}
