/// Each kernel once more in plain Swift, to be read, and for tests to hold every instruction set to.
package enum Reference {}

extension Reference {
  /// The value at `index` of `values`, exactly.
  static func load(_ values: UnsafeRawBufferPointer, _ index: Int, as type: FloatType) -> Double {
    let offset = index * type.byteCount
    switch type {
    case .bf16:
      let bits = unsafe UInt16(littleEndian: values.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
      return BinaryFormat.bf16.value(bits: UInt64(bits))
    case .f16:
      let bits = unsafe UInt16(littleEndian: values.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
      return BinaryFormat.f16.value(bits: UInt64(bits))
    case .f32:
      let bits = unsafe UInt32(littleEndian: values.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
      return BinaryFormat.f32.value(bits: UInt64(bits))
    }
  }

  /// The 64-bit value at `index` of `values`.
  static func load(_ values: UnsafeRawBufferPointer, _ index: Int) -> Double {
    let bits = unsafe values.loadUnaligned(fromByteOffset: index * 8, as: UInt64.self)
    return Double(bitPattern: UInt64(littleEndian: bits))
  }

  /// Stores `value`, rounded to nearest even, at `index` of `output`. Returns what is stored.
  @discardableResult
  static func store(
    _ value: Double, _ index: Int, of output: UnsafeMutableRawBufferPointer, as type: FloatType
  ) -> Double {
    let offset = index * type.byteCount
    switch type {
    case .bf16, .f16:
      let format = type == .bf16 ? BinaryFormat.bf16 : .f16
      let bits = format.bits(rounding: value)
      unsafe output.storeBytes(of: UInt16(truncatingIfNeeded: bits).littleEndian, toByteOffset: offset, as: UInt16.self)
      return format.value(bits: bits)
    case .f32:
      let bits = BinaryFormat.f32.bits(rounding: value)
      unsafe output.storeBytes(of: UInt32(truncatingIfNeeded: bits).littleEndian, toByteOffset: offset, as: UInt32.self)
      return BinaryFormat.f32.value(bits: bits)
    }
  }
}

/// An IEEE 754 binary format narrower than a Double, by its two widths.
struct BinaryFormat {
  var exponentBits: Int
  /// Stored bits of the significand, without the implicit one.
  var fractionBits: Int

  static let bf16 = BinaryFormat(exponentBits: 8, fractionBits: 7)
  static let f16 = BinaryFormat(exponentBits: 5, fractionBits: 10)
  static let f32 = BinaryFormat(exponentBits: 8, fractionBits: 23)

  private var bias: Int { 1 << (exponentBits - 1) - 1 }

  /// The value of a bit pattern; a NaN becomes quiet and keeps its sign and payload.
  func value(bits: UInt64) -> Double {
    let fraction = bits & (1 << fractionBits - 1)
    let exponent = Int(bits >> fractionBits) & (1 << exponentBits - 1)
    let sign: FloatingPointSign = bits >> (fractionBits + exponentBits) & 1 == 0 ? .plus : .minus
    if exponent == 1 << exponentBits - 1 {
      if fraction == 0 { return sign == .plus ? .infinity : -.infinity }
      let pattern = Double.nan.bitPattern | fraction << (52 - fractionBits)
      return Double(bitPattern: pattern | (sign == .plus ? 0 : 1 << 63))
    }
    let significand = Double(exponent == 0 ? fraction : fraction | 1 << fractionBits)
    let scale = max(exponent, 1) - bias - fractionBits
    return Double(sign: sign, exponent: scale, significand: significand)
  }

  /// The bit pattern nearest to `value`, ties to even; a NaN becomes quiet and keeps its sign and the
  /// upper bits of its payload.
  func bits(rounding value: Double) -> UInt64 {
    let sign: UInt64 = value.sign == .minus ? 1 << (fractionBits + exponentBits) : 0
    let infinity: UInt64 = (1 << exponentBits - 1) << fractionBits
    if value.isNaN {
      let payload = value.bitPattern & (1 << 52 - 1)
      return sign | infinity | payload >> (52 - fractionBits) | 1 << (fractionBits - 1)
    }
    if value.isInfinite { return sign | infinity }
    // In units of the last place at this magnitude, rounding to an integer is rounding the value.
    let exponent = max(value == 0 ? Int.min : Int(value.exponent), 1 - bias)
    let unit = exponent - fractionBits
    let scaled = Double(sign: .plus, exponent: -unit, significand: value.magnitude)
    let significand = UInt64(scaled.rounded(.toNearestOrEven))
    // A significand rounded up to the next power of two carries into the exponent by itself.
    let magnitude = UInt64(exponent + bias - 1) << fractionBits + significand
    return sign | min(magnitude, infinity)
  }
}
