// Values of -1, 0 and 1 with one scale, for models that are trained to have no others: `x = d · (q - 1)`.

/// 1.69 bits for each value: five to a byte. A byte is their base-3 number, as a fraction of 3^5 in units of
/// 1/256 and rounded up, so that a digit is what a multiplication by three carries out of it.
enum TQ1_0: BlockEncoder {
  static let fields: [BlockField] = [.bytes(48), .bytes(4), .half]

  /// Runs of bytes: value `first + j + n * count` is digit n of byte `start + j`.
  private static let runs: [(start: Int, count: Int, digits: Int, first: Int)] = [
    (0, 32, 5, 0), (32, 16, 5, 160), (48, 4, 4, 240),
  ]

  static func decode(_ block: UnsafeRawBufferPointer, into values: UnsafeMutableBufferPointer<Float>) {
    let d = unsafe block.half(52)
    for run in runs {
      for j in 0..<run.count {
        var rest = unsafe block[run.start + j]
        for digit in 0..<run.digits {
          let product = UInt16(rest) * 3
          unsafe values[run.first + j + digit * run.count] = Float(Int(product >> 8) - 1) * d
          rest = UInt8(truncatingIfNeeded: product)
        }
      }
    }
  }

  static func encode(_ values: UnsafeBufferPointer<Float>, into block: UnsafeMutableRawBufferPointer) {
    let scale = unsafe TernaryScale(values)
    unsafe block.storeHalf(scale.d, 52)
    for run in runs {
      for j in 0..<run.count {
        var number = 0
        for digit in 0..<5 {
          let code = unsafe digit < run.digits ? scale.code(values[run.first + j + digit * run.count]) : 0
          number = number * 3 + Int(code)
        }
        unsafe block[run.start + j] = UInt8((number * 256 + 242) / 243)
      }
    }
  }
}

/// 2.06 bits for each value: of each half of the block, four values share a byte, 32 apart.
enum TQ2_0: BlockEncoder {
  static let fields: [BlockField] = [.bytes(64), .half]

  static func decode(_ block: UnsafeRawBufferPointer, into values: UnsafeMutableBufferPointer<Float>) {
    let d = unsafe block.half(64)
    for i in 0..<256 {
      let code = unsafe block[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3
      unsafe values[i] = Float(Int(code) - 1) * d
    }
  }

  static func encode(_ values: UnsafeBufferPointer<Float>, into block: UnsafeMutableRawBufferPointer) {
    let scale = unsafe TernaryScale(values)
    unsafe block.storeHalf(scale.d, 64)
    for byte in 0..<64 {
      var codes: UInt8 = 0
      for part in 0..<4 {
        unsafe codes |= scale.code(values[byte / 32 * 128 + part * 32 + byte % 32]) << (part * 2)
      }
      unsafe block[byte] = codes
    }
  }
}

/// The largest magnitude; each value is rounded to it, to its opposite or to zero.
private struct TernaryScale {
  var d: Float
  private var inverse: Float

  init(_ values: UnsafeBufferPointer<Float>) {
    d = unsafe values.reduce(0) { max($0, $1.magnitude) }
    inverse = d == 0 ? 0 : 1 / d
  }

  /// 0, 1 or 2; zero, which is 1, where the scale's reciprocal is infinite and the scale stored as zero.
  func code(_ value: Float) -> UInt8 {
    let scaled = (value * inverse).rounded(.toNearestOrAwayFromZero)
    return scaled.isFinite ? UInt8(scaled + 1) : 1
  }
}
