/// The two four-bit number systems of bitsandbytes: what each of the 16 codes stands for.
public enum FourBitCode: String, Sendable, CaseIterable {
  case nf4, fp4

  /// The value of each code, relative to the block's absmax; what is stored as `quant_map`.
  public var levels: [Float] {
    switch self {
    case .nf4: Self.normalFloat
    case .fp4: Self.float
    }
  }

  /// The code of 0.0, which also pads an odd number of values.
  public var zeroCode: UInt8 {
    switch self {
    case .nf4: 7
    case .fp4: 0
    }
  }

  /// The codes by rising value. FP4 has two zeros: bitsandbytes gives 0 to zero itself and to
  /// negative values nearer to zero than to any other level, 8 to such positive ones.
  package var codesByLevel: [UInt8] {
    switch self {
    case .nf4: Array(0..<16)
    case .fp4: [11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3]
    }
  }

  /// The 15 midpoints, in 32-bit arithmetic as bitsandbytes computes them, between the levels taken
  /// by rising value. A value greater than `n` of them has the code `codesByLevel[n]`.
  package var midpoints: [Float] {
    let sorted = codesByLevel.map { levels[Int($0)] }
    return zip(sorted, sorted.dropFirst()).map { ($0 + $1) / 2 }
  }

  /// The value of `nibble_code` in the kernels' header.
  var kernelValue: Int32 {
    switch self {
    case .nf4: 0
    case .fp4: 1
    }
  }

  // Quantiles of the normal distribution, table of bitsandbytes 0.50.
  private static let normalFloat: [Float] = [
    -1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1,
  ]

  // Sign, two bits of exponent, one of mantissa, over the largest magnitude (12).
  private static let float: [Float] = [
    0, 0.0625 / 12, 8.0 / 12, 1, 4.0 / 12, 0.5, 2.0 / 12, 0.25,
    0, -0.0625 / 12, -8.0 / 12, -1, -4.0 / 12, -0.5, -2.0 / 12, -0.25,
  ]
}
