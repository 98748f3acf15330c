/// The factor of a block as it is stored in 16 bits; the greatest finite one in place of an infinity.
struct BlockFactor {
  var bits: UInt16
  var value: Float
  var isSaturated: Bool

  init(_ exact: Float) {
    isSaturated = exact.magnitude >= 65520
    let finite = exact.isNaN ? 0 : isSaturated ? Float(signOf: exact, magnitudeOf: 65504) : exact
    let pattern = BinaryFormat.f16.bits(rounding: Double(finite))
    bits = UInt16(truncatingIfNeeded: pattern)
    value = Float(BinaryFormat.f16.value(bits: pattern))
  }

  var bytes: [UInt8] { [UInt8(bits & 0xFF), UInt8(bits >> 8)] }
}

/// Scales or minima of the sub-blocks of a super-block, as multiples of one factor.
struct Multiples {
  var factor: BlockFactor
  var levels: [Float]

  /// What sub-block `index` is decoded with.
  subscript(index: Int) -> Float { factor.value * levels[index] }

  func level(_ index: Int) -> Int { Int(levels[index]) }

  /// Of the greatest divided by `greatest`.
  init(dividingByGreatest exact: [Float], greatest: Int) {
    let most = exact.reduce(0, max)
    let factor = BlockFactor(most / Float(greatest))
    let inverse = most > 0 ? factor.isSaturated ? 1 / factor.value : Float(greatest) / most : 0
    self.factor = factor
    levels = exact.map { ScaleSearch.nearest(inverse * $0, within: 0...greatest) }
  }

  /// Of what fits best, weighted.
  init(fitting exact: [Float], _ weights: [Float], greatest: Int) {
    let fit = RefinedFit(positive: exact, weights, greatest: greatest)
    let factor = BlockFactor(fit.scale)
    self.factor = factor
    levels =
      factor.isSaturated
      ? exact.map { ScaleSearch.nearest($0 / factor.value, within: 0...greatest) } : fit.levels
  }

  /// From -greatest to greatest - 1, of the one of greatest magnitude divided by -greatest; `zero` if all are zero.
  init(dividingByExtreme exact: [Float], greatest: Int, zero: Float) {
    let extreme = ScaleSearch.extreme(exact)
    let isZero = extreme.magnitude < ScaleSearch.negligible
    var inverse = Float(-greatest) / extreme
    let factor = BlockFactor(isZero ? 0 : 1 / inverse)
    if factor.isSaturated { inverse = 1 / factor.value }
    self.factor = factor
    levels = exact.map { isZero ? zero : ScaleSearch.nearest(inverse * $0, within: -greatest...greatest - 1) }
  }

  /// The same of what fits best, weighted.
  init(fittingSigned exact: [Float], _ weights: [Float], greatest: Int) {
    let fit = LinearFit(exact, weights, greatest: greatest)
    let factor = BlockFactor(fit.scale)
    let inverse = factor.isSaturated ? 1 / factor.value : fit.inverse
    self.factor = factor
    levels = exact.map {
      fit.inverse == 0 ? Float(-greatest) : ScaleSearch.nearest(inverse * $0, within: -greatest...greatest - 1)
    }
  }
}

/// Values and importance of one block, and what all encoders make of them.
struct BlockValues {
  var values: [Float]
  var importance: [Float]?

  /// A block below 2^-90 has no factor in 16 bits but zero, and one above 2^30 none at all.
  init(_ values: some Sequence<Float>, importance: [Float]?) {
    let largest = values.reduce(0) { max($0, $1.magnitude) }
    if largest < 0x1p-90 {
      self.values = values.map { _ in 0 }
    } else {
      self.values = values.map { min(max($0, -0x1p30), 0x1p30) }
    }
    self.importance = importance
  }

  func subBlocks(of size: Int) -> [Range<Int>] {
    stride(from: 0, to: values.count, by: size).map { $0..<$0 + size }
  }

  /// Importance * sqrt(factor * mean square of the block + value^2); nil without importance.
  func importanceWeights(factor: Float) -> [Float]? {
    guard let importance else { return nil }
    var sum: Float = 0
    for value in values { sum += value * value }
    let variance = sum * (factor / Float(values.count))
    return zip(importance, values).map { $0 * (variance + $1 * $1).squareRoot() }
  }

  /// Level = (value + minimum) / scale, counted from the lower bound.
  func levels(_ range: Range<Int>, scale: Float, minimum: Float = 0, within bounds: ClosedRange<Int>) -> [UInt8] {
    values[range].map { value in
      UInt8(Int(ScaleSearch.rounded((value + minimum) / scale, within: bounds)) - bounds.lowerBound)
    }
  }

  /// What the search had, for a scale that was rounded to zero.
  func levels(_ range: Range<Int>, inverse: Float, offset: Float = 0, within bounds: ClosedRange<Int>) -> [UInt8] {
    values[range].map { value in
      UInt8(Int(ScaleSearch.rounded(inverse * (value - offset), within: bounds)) - bounds.lowerBound)
    }
  }
}

extension Reference {
  /// Encodes rows of `rowLength` values in blocks of `size`.
  static func encodeBlocks(
    _ values: [Float], rowLength: Int, importance: [Float]?, of size: Int, _ encode: (BlockValues) -> [UInt8]
  ) -> [UInt8] {
    stride(from: 0, to: values.count, by: size).flatMap { start in
      let column = start % rowLength
      let weights = importance.map { Array($0[column..<column + size]) }
      return encode(BlockValues(values[start..<start + size], importance: weights))
    }
  }

  static func sum(_ values: some Sequence<Float>) -> Float { values.reduce(0, +) }
}
