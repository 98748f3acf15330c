extension Reference {
  /// See `GroupFormat.quantize`.
  package static func quantize(
    _ values: UnsafeRawBufferPointer, as type: FloatType, format: GroupFormat, packed: UnsafeMutableRawBufferPointer,
    scales: UnsafeMutableRawBufferPointer, biases: UnsafeMutableRawBufferPointer
  ) throws(NonFinite) {
    for group in 0..<format.groupCount(values.count / type.byteCount) {
      let range = group * format.groupSize..<(group + 1) * format.groupSize
      let numbers = range.map { unsafe Float(load(values, $0, as: type)) }
      let codes: [UInt8]
      switch format.mode {
      case .affine:
        guard let affine = AffineGroup(numbers, bits: format.bits) else {
          throw unsafe refused(group: range, of: values, as: type)
        }
        codes = affine.codes
        unsafe store(Double(affine.scale), group, of: scales, as: type)
        unsafe store(Double(affine.bias), group, of: biases, as: type)
      case .mxfp4:
        guard numbers.allSatisfy(\.isFinite) else { throw unsafe refused(group: range, of: values, as: type) }
        let exponent = scaleExponent(numbers, type)
        let scale = Float(sign: .plus, exponent: exponent, significand: 1)
        codes = numbers.map { FloatE2M1.code($0 / scale, 0.5) }
        unsafe scales[group] = UInt8(exponent + 127)
      }
      unsafe store(codes, bits: format.bits, at: format.packedByteCount(range.lowerBound), of: packed)
    }
  }

  /// See `GroupFormat.dequantize`.
  package static func dequantize(
    packed: UnsafeRawBufferPointer, scales: UnsafeRawBufferPointer, biases: UnsafeRawBufferPointer,
    scaleType: FloatType, format: GroupFormat, into values: UnsafeMutableRawBufferPointer, as type: FloatType
  ) {
    for index in 0..<values.count / type.byteCount {
      let group = index / format.groupSize
      let code = unsafe code(index, bits: format.bits, of: packed)
      let value: Double
      switch format.mode {
      case .affine:
        let scale = unsafe Float(load(scales, group, as: scaleType))
        let bias = unsafe Float(load(biases, group, as: scaleType))
        let product = Float(rounded(Double(Float(code) * scale), as: scaleType))
        value = rounded(Double(product + bias), as: scaleType)
      case .mxfp4:
        let magnitude = FloatE2M1.levels[code & 7] / 2
        let power = unsafe Float(sign: .plus, exponent: Int(scales[group]) - 127, significand: 1)
        let scale = Float(rounded(Double(power), as: type))
        value = Double((code & 8 == 0 ? magnitude : -magnitude) * scale)
      }
      unsafe store(value, index, of: values, as: type)
    }
  }

  /// Why a group cannot be quantized: the first value that is not finite, or the largest.
  static func refused(group: Range<Int>, of values: UnsafeRawBufferPointer, as type: FloatType) -> NonFinite {
    var refused = NonFinite(index: group.lowerBound, value: 0)
    for index in group {
      let value = unsafe Float(load(values, index, as: type))
      guard value.isFinite else { return NonFinite(index: index, value: value) }
      if value.magnitude > refused.value.magnitude { refused = NonFinite(index: index, value: value) }
    }
    return refused
  }

  /// The least whole number e, but not less than -127, for which a sixth of the largest magnitude, rounded to
  /// `type`, does not exceed 2^e; 0 where that sixth is zero.
  private static func scaleExponent(_ values: [Float], _ type: FloatType) -> Int {
    let largest = values.reduce(0) { max($0, $1.magnitude) }
    let sixth = rounded(Double(largest / 6), as: type)
    if sixth == 0 { return 0 }
    return max(Int(sixth.exponent) + (sixth.significand == 1 ? 0 : 1), -127)
  }

  /// `value` as `type` can hold it.
  static func rounded(_ value: Double, as type: FloatType) -> Double {
    let format: BinaryFormat =
      switch type {
      case .bf16: .bf16
      case .f16: .f16
      case .f32: .f32
      }
    return format.value(bits: format.bits(rounding: value))
  }

  /// Stores the codes of a group from byte `offset` on.
  private static func store(
    _ codes: [UInt8], bits: Int, at offset: Int, of packed: UnsafeMutableRawBufferPointer
  ) {
    for index in 0..<codes.count * bits / 8 { unsafe packed[offset + index] = 0 }
    for bit in 0..<codes.count * bits where codes[bit / bits] >> (bit % bits) & 1 == 1 {
      unsafe packed[offset + bit / 8] |= 1 << (bit % 8)
    }
  }

  /// The code at `index` of all.
  private static func code(_ index: Int, bits: Int, of packed: UnsafeRawBufferPointer) -> Int {
    (0..<bits).reduce(0) { code, bit in
      let position = index * bits + bit
      return unsafe code | Int(packed[position / 8] >> (position % 8) & 1) << bit
    }
  }
}

/// MLX's scale, bias and codes of one group, before scale and bias are rounded to the type of the values.
private struct AffineGroup {
  var scale: Float
  var bias: Float
  var codes: [UInt8]

  /// Nil if a value, or the range of all, is not finite.
  init?(_ values: [Float], bits: Int) {
    guard values.allSatisfy(\.isFinite), let low = values.min(), let high = values.max(), (high - low).isFinite
    else { return nil }
    let largestCode = Float(1 << bits - 1)
    let step = max((high - low) / largestCode, 1e-7)
    // The extreme of greater magnitude becomes a multiple of the scale.
    let isLow = low.magnitude > high.magnitude
    let edge = isLow ? low : high
    scale = isLow ? step : -step
    bias = 0
    let multiple = (edge / scale).rounded(.toNearestOrEven)
    if multiple != 0 {
      scale = edge / multiple
      bias = edge
    }
    let (scale, bias) = (scale, bias)
    codes = values.map { value in
      // Zero by zero where equal values are so great that the scale vanishes.
      let code = scale == 0 ? 0 : ((value - bias) / scale).rounded(.toNearestOrEven)
      return UInt8(min(max(code, 0), largestCode))
    }
  }
}
