// The doors to the kernels of formats: what callers hand over as spans goes on as pointers, good for the call.

extension FourBitFormat {
  /// Quantizes a piece of a tensor, bit-identical to bitsandbytes 0.50 on the CPU.
  ///
  /// A piece starts on a block boundary, and only the tensor's last piece may end off one, so that the
  /// result does not depend on how a tensor is cut. bitsandbytes treats a last, partial block in its
  /// own way: it divides by absmax where other blocks multiply by its reciprocal, and stores at least
  /// 1e-38 for absmax.
  ///
  /// - Parameters:
  ///   - values: a whole number of `type`.
  ///   - codes: room for `packedByteCount`; the low nibble after an odd number of values is `zeroCode`.
  ///   - absmax: room for `blockCount`.
  /// - Throws: the first value that is NaN or infinite; the outputs are then unspecified.
  public func quantize(
    _ values: RawSpan, as type: FloatType, codes: inout MutableRawSpan, absmax: inout MutableSpan<Float>
  ) throws(NonFinite) {
    try unsafe values.withUnsafeBytes { (values) throws(NonFinite) in
      try unsafe codes.withUnsafeMutableBytes { (codes) throws(NonFinite) in
        try unsafe absmax.withUnsafeMutableBufferPointer { (absmax) throws(NonFinite) in
          try unsafe quantize(values, as: type, codes: codes, absmax: absmax)
        }
      }
    }
  }

  /// Quantizes whole blocks with searched scales in 32 bits.
  ///
  /// - Parameters:
  ///   - values: of `type`; only the last block of a weight may be partial.
  ///   - column: of the first value.
  ///   - codes: room for `packedByteCount`.
  ///   - scales: room for `blockCount`; they may be negative.
  /// - Throws: the first value that is NaN or infinite; the outputs are then unspecified.
  public func quantize(
    _ values: RawSpan, as type: FloatType, search: FourBitSearch, column: Int = 0, codes: inout MutableRawSpan,
    scales: inout MutableSpan<Float>
  ) throws(NonFinite) {
    try unsafe values.withUnsafeBytes { (values) throws(NonFinite) in
      try unsafe codes.withUnsafeMutableBytes { (codes) throws(NonFinite) in
        try unsafe scales.withUnsafeMutableBufferPointer { (scales) throws(NonFinite) in
          try unsafe quantize(
            values, as: type, search: search, column: column, codes: codes, scales: scales, scaleCodes: nil)
        }
      }
    }
  }

  /// The same with scales in 8 bits and an offset of 0, as double quantization stores them.
  ///
  /// - Parameters:
  ///   - values: from the first of 256 blocks on.
  ///   - nestedScales: room for one of each 256 blocks, what the 8 bits are relative to.
  ///   - scaleCodes: room for `blockCount`, positions in `DoubleQuantization.map`.
  public func quantize(
    _ values: RawSpan, as type: FloatType, search: FourBitSearch, column: Int = 0, codes: inout MutableRawSpan,
    nestedScales: inout MutableSpan<Float>, scaleCodes: inout MutableRawSpan
  ) throws(NonFinite) {
    try unsafe values.withUnsafeBytes { (values) throws(NonFinite) in
      try unsafe codes.withUnsafeMutableBytes { (codes) throws(NonFinite) in
        try unsafe nestedScales.withUnsafeMutableBufferPointer { (scales) throws(NonFinite) in
          try unsafe scaleCodes.withUnsafeMutableBytes { (stored) throws(NonFinite) in
            try unsafe quantize(
              values, as: type, search: search, column: column, codes: codes, scales: scales,
              scaleCodes: stored.assumingMemoryBound(to: UInt8.self))
          }
        }
      }
    }
  }

  /// Dequantizes a range of values, bit-identical to bitsandbytes 0.50 on the CPU.
  ///
  /// Products that are subnormal in `type` are rounded to nearest even like all others; bitsandbytes
  /// does so too, except for bf16 on processors with AVX512-BF16, where it flushes them to zero. FP4's
  /// second zero, code 8, is 0 as in `levels` (bitsandbytes: 0 in its vector path, else -0).
  ///
  /// - Parameters:
  ///   - codes, absmax: start at element 0 and reach at least to `elements.upperBound`. They are those
  ///     of a tensor, or of a piece of one that starts on a block boundary.
  ///   - output: room for `elements.count` values of `type`.
  public func dequantize(
    codes: RawSpan, absmax: Span<Float>, elements: Range<Int>, into output: inout MutableRawSpan, as type: FloatType
  ) {
    unsafe codes.withUnsafeBytes { codes in
      unsafe absmax.withUnsafeBufferPointer { absmax in
        unsafe output.withUnsafeMutableBytes { output in
          unsafe dequantize(codes: codes, absmax: absmax, elements: elements, into: output, as: type)
        }
      }
    }
  }
}

extension DoubleQuantization {
  /// The mean of `absmax`, as 32-bit value nearest to the sum in double precision, which does not
  /// depend on who computes it. 0 when there are none.
  public static func offset(_ absmax: Span<Float>) -> Float {
    unsafe absmax.withUnsafeBufferPointer { unsafe offset($0) }
  }

  /// Quantizes `absmax - offset`, given the offset bit-identical to bitsandbytes 0.50 on x86.
  ///
  /// - Parameters:
  ///   - codes: room for one byte per absmax value.
  ///   - nestedAbsmax: room for `blockCount(absmax.count)`.
  public static func quantize(
    _ absmax: Span<Float>, offset: Float, codes: inout MutableSpan<UInt8>, nestedAbsmax: inout MutableSpan<Float>
  ) {
    unsafe absmax.withUnsafeBufferPointer { absmax in
      unsafe codes.withUnsafeMutableBufferPointer { codes in
        unsafe nestedAbsmax.withUnsafeMutableBufferPointer { nested in
          unsafe quantize(absmax, offset: offset, codes: codes, nestedAbsmax: nested)
        }
      }
    }
  }

  /// The absmax values that double-quantized ones stand for: `map[code] * nestedAbsmax + offset`.
  ///
  /// - Parameters:
  ///   - map: the file's `nested_quant_map`, 256 values; normally equal to `DoubleQuantization.map`.
  ///   - blocks: which absmax values; `codes` and `nestedAbsmax` start at absmax value 0.
  ///   - absmax: room for `blocks.count` values.
  public static func dequantize(
    codes: RawSpan, nestedAbsmax: Span<Float>, map: [Float] = map, offset: Float, blocks: Range<Int>,
    into absmax: inout MutableSpan<Float>
  ) {
    unsafe codes.withUnsafeBytes { codes in
      unsafe nestedAbsmax.withUnsafeBufferPointer { nested in
        unsafe absmax.withUnsafeMutableBufferPointer { absmax in
          unsafe dequantize(
            codes: codes.assumingMemoryBound(to: UInt8.self), nestedAbsmax: nested, map: map, offset: offset,
            blocks: blocks, into: absmax)
        }
      }
    }
  }
}

extension BlockType {
  /// The values of whole blocks, bit-identical to ggml.
  ///
  /// Any bytes are blocks; a scale that is infinite or NaN gives such values.
  ///
  /// - Parameters:
  ///   - blocks: whole blocks, at any alignment.
  ///   - values: room for as many values as the blocks have.
  public func decode(_ blocks: RawSpan, into values: inout MutableSpan<Float>) {
    unsafe blocks.withUnsafeBytes { blocks in
      unsafe values.withUnsafeMutableBufferPointer { unsafe decode(blocks, into: $0) }
    }
  }

  /// Encodes whole rows; without importance bit-identical to the reference implementation of ggml.
  ///
  /// - Parameters:
  ///   - values: whole rows, one after the other.
  ///   - rowLength: values per row, a multiple of `valuesPerBlock`.
  ///   - importance: finite and not negative, one for each column; see `Importance`.
  ///   - blocks: room for `byteCount(values.count)` bytes, at any alignment.
  /// - Throws: the first value that is NaN or infinite, or, where all are finite, the largest of the first
  ///   block whose scale the kind's 16-bit floating point cannot hold (ggml stores an infinity). The blocks
  ///   are then unspecified.
  public func encode(
    _ values: Span<Float>, rowLength: Int, importance: Span<Float>?, into blocks: inout MutableRawSpan
  ) throws(NonFinite) {
    try unsafe values.withUnsafeBufferPointer { (values) throws(NonFinite) in
      try unsafe blocks.withUnsafeMutableBytes { (blocks) throws(NonFinite) in
        guard let importance else {
          return try unsafe encode(values, rowLength: rowLength, importance: nil, into: blocks)
        }
        try unsafe importance.withUnsafeBufferPointer { (importance) throws(NonFinite) in
          try unsafe encode(values, rowLength: rowLength, importance: importance, into: blocks)
        }
      }
    }
  }
}
