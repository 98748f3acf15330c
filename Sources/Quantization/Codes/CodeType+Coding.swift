import Kernels

extension CodeType {
  /// Computes `(code - zero) * scale`, in 32 bits, and rounds once to the type of the values.
  ///
  /// Any bytes are codes; scales that are infinite or NaN give such values, and a product beyond the range of
  /// the values is infinite. Any NaN is as good as another.
  ///
  /// - Parameters:
  ///   - codes: as many as there are values.
  ///   - scales: of the groups that the codes are in.
  ///   - zeros: one for each scale; empty where nothing is subtracted.
  ///   - groupSize: codes that share a scale, at least 1.
  ///   - lead: codes of the first group that come before the first one here; less than a group.
  ///   - values: all of the room is written.
  ///   - type: of the values.
  public func dequantize(
    _ codes: RawSpan, scales: Span<Float>, zeros: Span<Float>, groupSize: Int, lead: Int = 0,
    into values: inout MutableRawSpan, as type: FloatType
  ) {
    let count = values.byteCount / type.byteCount
    precondition(values.byteCount % type.byteCount == 0, "half a value")
    guard count > 0 else { return }
    precondition((1...8).contains(bits), "no codes of such a width")
    precondition(codes.byteCount >= byteCount(count), "codes too short")
    precondition(groupSize > 0 && (0..<groupSize).contains(lead), "no group")
    precondition(scales.count > (lead + count - 1) / groupSize, "scales too short")
    precondition(zeros.isEmpty || zeros.count >= scales.count, "zeros too short")
    unsafe codes.withUnsafeBytes { codes in
      unsafe scales.withUnsafeBufferPointer { scales in
        unsafe zeros.withUnsafeBufferPointer { zeros in
          unsafe values.withUnsafeMutableBytes { values in
            unsafe nibble_dequantize_codes(
              codes.assumingMemoryBound(to: UInt8.self).baseAddress, kernelValue, Int32(bits), origin, count,
              scales.baseAddress, zeros.isEmpty ? nil : zeros.baseAddress, groupSize, lead, values.baseAddress,
              type.kernelValue)
          }
        }
      }
    }
  }

  /// The value of `nibble_code_type` in the kernels' header.
  private var kernelValue: Int32 {
    switch self {
    case .e4m3: 0
    case .e5m2: 1
    case .e2m1: 2
    case .e8m0: 3
    case .int8: 4
    case .unsigned, .offset: 5
    }
  }
}
