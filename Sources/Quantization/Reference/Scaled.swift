extension Reference {
  /// See `ScaledFormat.quantize`.
  package static func quantize(
    _ values: UnsafeRawBufferPointer, as type: FloatType, format: ScaledFormat, columns: Int, globalScale: Float,
    codes: UnsafeMutableRawBufferPointer, scales: UnsafeMutableRawBufferPointer
  ) throws(NonFinite) {
    let count = values.count / type.byteCount
    let rows = count / columns
    let width = format.blockColumns ?? columns
    let shape = format.scaleShape(rows: rows, columns: columns)
    for block in 0..<shape.rows * shape.columns {
      let (top, left) = (block / shape.columns * format.blockRows, block % shape.columns * width)
      let parts = (top..<min(top + format.blockRows, rows)).map { row in
        row * columns + left..<row * columns + min(left + width, columns)
      }
      for part in parts where !part.allSatisfy({ unsafe load(values, $0, as: type).isFinite }) {
        throw unsafe refused(group: part, of: values, as: type)
      }
      let largest = parts.joined().reduce(0) { unsafe max($0, Float(load(values, $1, as: type)).magnitude) }
      let divisor =
        format.kind == .nearestMXFP4
        ? unsafe nearestScale(largest, parts.joined().map { unsafe Float(load(values, $0, as: type)) }, block, scales)
        : unsafe divisor(largest, type, format.kind, globalScale, block, scales)
      for index in parts.joined() {
        let value = unsafe Float(load(values, index, as: type))
        let quotient = value / divisor
        switch format.kind {
        case .fp8:
          // There is a zero point of 0, and so there is one zero only among the quotients.
          let bounded = min(max(rounded(Double(quotient), as: type) + 0, -448), 448)
          unsafe codes[index] = nearestE4M3(bounded)
        case .int4:
          let bounded = min(max(rounded(Double(quotient), as: type), -8), 7)
          unsafe put(UInt8(bounded.rounded(.toNearestOrEven) + 8), index, of: codes)
        case .mxfp4, .nvfp4: unsafe put(nearestE2M1(quotient), index, of: codes)
        case .nearestMXFP4: unsafe put(nearestE2M1(quotient) & 7 | (value.sign == .minus ? 8 : 0), index, of: codes)
        }
      }
    }
  }

  /// Stores the scale of a block and returns what its values are divided by.
  private static func divisor(
    _ largest: Float, _ type: FloatType, _ kind: ScaledFormat.Kind, _ globalScale: Float, _ block: Int,
    _ scales: UnsafeMutableRawBufferPointer
  ) -> Float {
    switch kind {
    case .fp8, .int4:
      let scale = rounded(Double(largest / (kind == .fp8 ? 448 : 7.5)), as: type)
      return unsafe Float(store(scale == 0 ? epsilon(type) : scale, block, of: scales, as: type))
    case .mxfp4, .nearestMXFP4:
      // The exponent of the nearest power of two, which is the next from 1.75 on; 4 has the largest exponent of E2M1.
      let exponent =
        largest < .leastNormalMagnitude ? -127 : largest.exponent + (largest.significand < 1.75 ? 0 : 1) - 2
      unsafe scales[block] = UInt8(max(Int(exponent), -127) + 127)
      return Float(sign: .plus, exponent: max(Int(exponent), -127), significand: 1)
    case .nvfp4:
      let scaled = Float(rounded(Double(largest / 6), as: type)) * globalScale
      var code = nearestE4M3(Double(min(scaled, 448)))
      if code == 0 { code = nearestE4M3(0.125) }
      unsafe scales[block] = code
      return value(of: Int(code), .e4m3) / globalScale
    }
  }

  /// Stores the scale of a block of `nearestMXFP4` and returns it.
  private static func nearestScale(
    _ largest: Float, _ values: [Float], _ block: Int, _ scales: UnsafeMutableRawBufferPointer
  ) -> Float {
    // Errors are whole steps of 2^-11 of the scale.
    func error(_ scale: Float) -> Int {
      values.reduce(0) { sum, value in
        let quotient = (value / scale).magnitude
        let level = Reference.value(of: Int(nearestE2M1(quotient)), .e2m1)
        let steps = Int(((quotient - level) * 2048).rounded(.toNearestOrEven))
        return sum + steps * steps
      }
    }
    func power(_ exponent: Int) -> Float { Float(sign: .plus, exponent: exponent, significand: 1) }
    let exponent = largest < .leastNormalMagnitude ? -127 : Int(largest.exponent)
    let lower = max(exponent - 2, -127)
    // Beyond 2^125 six is no number of 32 bits.
    let upper = min(max(exponent - 1, -127), 125)
    var chosen = lower
    if upper != lower {
      let (below, above) = (error(power(lower)), 4 * error(power(upper)))
      let isThree = below == 0 && largest.significand == 1.5
      if above < below || above == below && isThree { chosen = upper }
    }
    unsafe scales[block] = UInt8(chosen + 127)
    return power(chosen)
  }

  /// The distance of 1 to the next number.
  static func epsilon(_ type: FloatType) -> Double {
    switch type {
    case .bf16: 0x1p-7
    case .f16: 0x1p-10
    case .f32: 0x1p-23
    }
  }

  /// The code of the nearest number of E4M3, halfway the even one; magnitudes are 448 at most.
  static func nearestE4M3(_ value: Double) -> UInt8 {
    let exponent = max(value == 0 ? -6 : Int(value.exponent), -6)
    let significand = Double(sign: .plus, exponent: 3 - exponent, significand: value.magnitude)
    let magnitude = (exponent + 6) << 3 + Int(significand.rounded(.toNearestOrEven))
    return UInt8(magnitude) | (value.sign == .minus ? 0x80 : 0)
  }

  /// The nearest of the numbers of E2M1, halfway the even one; zero has a sign where the value is below it.
  static func nearestE2M1(_ value: Float) -> UInt8 {
    let levels: [Float] = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    var code = 0
    for next in levels.indices.dropFirst() {
      let middle = (levels[next - 1] + levels[next]) / 2
      let isAbove = next % 2 == 0 ? value.magnitude >= middle : value.magnitude > middle
      if isAbove { code = next }
    }
    return UInt8(code) | (value < 0 ? 8 : 0)
  }

  static func put(_ code: UInt8, _ index: Int, of codes: UnsafeMutableRawBufferPointer) {
    let shift = index % 2 * 4
    unsafe codes[index / 2] = codes[index / 2] & ~(0xF << shift) | code << shift
  }
}
