extension Reference {
  /// See `FourBitFormat.quantize`.
  package static func quantize(
    _ values: UnsafeRawBufferPointer, as type: FloatType, format: FourBitFormat,
    codes: UnsafeMutableRawBufferPointer, absmax: UnsafeMutableBufferPointer<Float>
  ) throws(NonFinite) {
    let count = values.count / type.byteCount
    let midpoints = format.code.midpoints
    let codesByLevel = format.code.codesByLevel
    var pending: UInt8 = 0
    for block in 0..<format.blockCount(count) {
      let range = block * format.blockSize..<min((block + 1) * format.blockSize, count)
      var largest: Float = 0
      for index in range {
        let value = unsafe Float(load(values, index, as: type))
        guard value.isFinite else { throw NonFinite(index: index, value: value) }
        largest = max(largest, value.magnitude)
      }
      // bitsandbytes clamps to 1e-38, and stores the clamped value for a partial block only.
      let divisor = max(largest, 1e-38)
      let isPartial = range.count < format.blockSize
      unsafe absmax[block] = isPartial ? divisor : largest
      let reciprocal = 1 / divisor
      for index in range {
        let value = unsafe Float(load(values, index, as: type))
        let scaled = isPartial ? value / divisor : value * reciprocal
        let code = codesByLevel[midpoints.prefix { scaled > $0 }.count]
        if index % 2 == 0 {
          pending = code
        } else {
          unsafe codes[index / 2] = pending << 4 | code
        }
      }
    }
    if count % 2 == 1 { unsafe codes[count / 2] = pending << 4 | format.code.zeroCode }
  }

  /// See `FourBitFormat.dequantize`.
  package static func dequantize(
    codes: UnsafeRawBufferPointer, absmax: UnsafeBufferPointer<Float>, elements: Range<Int>,
    into output: UnsafeMutableRawBufferPointer, as type: FloatType, format: FourBitFormat
  ) {
    let levels = format.code.levels
    for index in elements {
      let byte = unsafe codes[index / 2]
      let level = levels[Int(index % 2 == 0 ? byte >> 4 : byte & 15)]
      let value = unsafe level * absmax[index / format.blockSize]
      unsafe store(Double(value), index - elements.lowerBound, of: output, as: type)
    }
  }
}
