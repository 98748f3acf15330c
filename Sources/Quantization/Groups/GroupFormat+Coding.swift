import Kernels

extension GroupFormat {
  /// Quantizes whole groups, bit-identical to `mx.quantize` of MLX 0.32.4 on the CPU.
  ///
  /// One case differs: MLX lets the exponent of an MXFP4 scale below 2^-127 wrap around its byte, so that
  /// values of 1e-38 come back as 1e32. Here the exponent stays at its least.
  ///
  /// - Parameters:
  ///   - values: whole groups of `type`, of one row after the other.
  ///   - packed: room for `packedByteCount`.
  ///   - scales: room for `scaleByteCount`: numbers of `type`, or bytes for MXFP4.
  ///   - biases: room for `biasByteCount`: numbers of `type`; empty for MXFP4.
  /// - Throws: of the first group that cannot be quantized, the first value that is NaN or infinite, or,
  ///   where all are finite and only their range is infinite, the largest (MLX stores an infinite scale).
  ///   The outputs are then unspecified.
  public func quantize(
    _ values: RawSpan, as type: FloatType, packed: inout MutableRawSpan, scales: inout MutableRawSpan,
    biases: inout MutableRawSpan
  ) throws(NonFinite) {
    let count = values.byteCount / type.byteCount
    precondition(values.byteCount % type.byteCount == 0 && count % groupSize == 0, "part of a group")
    precondition(packed.byteCount >= packedByteCount(count), "codes too short")
    precondition(scales.byteCount >= scaleByteCount(count, as: type), "scales too short")
    precondition(biases.byteCount >= biasByteCount(count, as: type), "biases too short")
    guard count > 0 else { return }
    let done = unsafe values.withUnsafeBytes { values in
      unsafe packed.withUnsafeMutableBytes { packed in
        unsafe scales.withUnsafeMutableBytes { scales in
          unsafe biases.withUnsafeMutableBytes { biases in
            let codes = unsafe packed.assumingMemoryBound(to: UInt8.self).baseAddress
            switch mode {
            case .affine:
              return unsafe nibble_quantize_groups(
                values.baseAddress, type.kernelValue, count, Int32(bits), groupSize, codes, scales.baseAddress,
                biases.baseAddress)
            case .mxfp4:
              return unsafe nibble_quantize_mxfp4_groups(
                values.baseAddress, type.kernelValue, count, codes,
                scales.assumingMemoryBound(to: UInt8.self).baseAddress)
            }
          }
        }
      }
    }
    guard done == count else {
      throw unsafe values.withUnsafeBytes { unsafe Reference.refused(group: done..<done + groupSize, of: $0, as: type) }
    }
  }

  /// Dequantizes whole groups, bit-identical to `mx.dequantize` of MLX 0.32.4 on the CPU; any NaN is as good
  /// as another.
  ///
  /// In 16 bits the product of code and scale is rounded first, and then its sum with the bias; a scale of
  /// MXFP4 is rounded before its product with the level. Any bytes are groups; a scale that is infinite or NaN
  /// gives such values, and so does the scale 255 of MXFP4.
  ///
  /// - Parameters:
  ///   - packed, scales, biases: those of the groups, as `quantize` gives them.
  ///   - scaleType: the type of scales and biases, in which MLX computes. Of no account for MXFP4.
  ///   - values: the room of whole groups, all of which are written.
  ///   - type: of the values: for affine groups `scaleType` or f32, which holds the same values.
  public func dequantize(
    packed: RawSpan, scales: RawSpan, biases: RawSpan, scaleType: FloatType, into values: inout MutableRawSpan,
    as type: FloatType
  ) {
    let count = values.byteCount / type.byteCount
    precondition(values.byteCount % type.byteCount == 0 && count % groupSize == 0, "part of a group")
    precondition(packed.byteCount >= packedByteCount(count), "codes too short")
    precondition(scales.byteCount >= scaleByteCount(count, as: scaleType), "scales too short")
    precondition(biases.byteCount >= biasByteCount(count, as: scaleType), "biases too short")
    precondition(mode == .mxfp4 || type == scaleType || type == .f32, "values of another type than the scales")
    guard count > 0 else { return }
    unsafe packed.withUnsafeBytes { packed in
      unsafe scales.withUnsafeBytes { scales in
        unsafe biases.withUnsafeBytes { biases in
          unsafe values.withUnsafeMutableBytes { values in
            let codes = unsafe packed.assumingMemoryBound(to: UInt8.self).baseAddress
            switch mode {
            case .affine:
              unsafe nibble_dequantize_groups(
                codes, scales.baseAddress, biases.baseAddress, scaleType.kernelValue, count, Int32(bits), groupSize,
                values.baseAddress, type.kernelValue)
            case .mxfp4:
              unsafe nibble_dequantize_mxfp4_groups(
                codes, scales.assumingMemoryBound(to: UInt8.self).baseAddress, count, values.baseAddress,
                type.kernelValue)
            }
          }
        }
      }
    }
  }
}
