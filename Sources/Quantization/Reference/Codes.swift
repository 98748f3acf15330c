extension Reference {
  /// See `CodeType.dequantize`.
  package static func dequantize(
    _ codes: UnsafeRawBufferPointer, type: CodeType, scales: [Float], zeros: [Float], groupSize: Int, lead: Int,
    into values: UnsafeMutableRawBufferPointer, as output: FloatType
  ) {
    for index in 0..<values.count / output.byteCount {
      let code = (0..<type.bits).reduce(0) { code, bit in
        let position = index * type.bits + bit
        return unsafe code | Int(codes[position / 8] >> (position % 8) & 1) << bit
      }
      let group = (lead + index) / groupSize
      let value = zeros.isEmpty ? self.value(of: code, type) : self.value(of: code, type) - zeros[group]
      unsafe store(Double(value * scales[group]), index, of: values, as: output)
    }
  }

  static func value(of code: Int, _ type: CodeType) -> Float {
    switch type {
    case .e4m3: code & 0x7F == 0x7F ? .nan : small(code, exponentBits: 4, mantissaBits: 3)
    case .e5m2:
      switch code & 0x7F {
      case 0x7C: code == 0x7C ? .infinity : -.infinity
      case 0x7D...0x7F: .nan
      default: small(code, exponentBits: 5, mantissaBits: 2)
      }
    case .e2m1: small(code, exponentBits: 2, mantissaBits: 1)
    case .e8m0: code == 255 ? .nan : Float(sign: .plus, exponent: code - 127, significand: 1)
    case .int8: Float(Int8(truncatingIfNeeded: code))
    case .unsigned, .offset: Float(code) - type.origin
    }
  }

  /// A finite number of few bits: sign, exponent with the usual bias, mantissa.
  private static func small(_ code: Int, exponentBits: Int, mantissaBits: Int) -> Float {
    let bias = 1 << (exponentBits - 1) - 1
    let exponent = code >> mantissaBits & (1 << exponentBits - 1)
    let fraction = Float(code & (1 << mantissaBits - 1)) / Float(1 << mantissaBits)
    let magnitude = Float(
      sign: .plus, exponent: max(exponent, 1) - bias, significand: exponent > 0 ? 1 + fraction : fraction)
    return code >> (exponentBits + mantissaBits) & 1 == 1 ? -magnitude : magnitude
  }
}
