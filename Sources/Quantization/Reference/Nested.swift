extension Reference {
  /// See `DoubleQuantization.quantize`.
  package static func quantizeAbsmax(
    _ absmax: UnsafeBufferPointer<Float>, offset: Float, codes: UnsafeMutableBufferPointer<UInt8>,
    nestedAbsmax: UnsafeMutableBufferPointer<Float>
  ) {
    let blockSize = DoubleQuantization.blockSize
    for block in 0..<DoubleQuantization.blockCount(absmax.count) {
      let range = block * blockSize..<min((block + 1) * blockSize, absmax.count)
      var largest: Float = 0
      for index in range { unsafe largest = max(largest, (absmax[index] - offset).magnitude) }
      unsafe nestedAbsmax[block] = largest
      for index in range {
        // bitsandbytes gives code 0 to a block of zeros; any code times zero is zero.
        let scaled = unsafe (absmax[index] - offset) * (1 / largest)
        unsafe codes[index] = largest == 0 ? 0 : DoubleQuantization.codesByPosition[position(of: scaled)]
      }
    }
  }

  private static func position(of scaled: Float) -> Int {
    // A subnormal maximum has an infinite reciprocal, and zero times that is NaN: position 0, as the
    // conversion instruction of x86 has it.
    guard !scaled.isNaN else { return 0 }
    let clamped = min(max(scaled, -1), 1)
    return Int((clamped + 1) * 0.5 * 65535 + 0.5)
  }
}
