/// The factor of a block as it is stored in 16 bits, infinite where it is too great. The value that the levels are
/// found with is finite nevertheless.
struct BlockFactor {
  var bits: UInt16
  var value: Float

  init(_ exact: Float) {
    let pattern = BinaryFormat.f16.bits(rounding: exact.isNaN ? .infinity : Double(exact))
    bits = UInt16(truncatingIfNeeded: pattern)
    value = min(max(Float(BinaryFormat.f16.value(bits: pattern)), -65504), 65504)
  }

  var bytes: [UInt8] { [UInt8(bits & 0xFF), UInt8(bits >> 8)] }
}

/// Scales or minima of the sub-blocks of a super-block, as multiples of one factor.
struct Multiples {
  var factor: BlockFactor
  var levels: [Float]

  /// The scale or minimum with which sub-block `index` is decoded.
  subscript(index: Int) -> Float { factor.value * levels[index] }

  func level(_ index: Int) -> Int { Int(levels[index]) }

  /// Takes the greatest value divided by `greatest` as the factor.
  init(dividingByGreatest exact: [Float], greatest: Int) {
    let most = exact.reduce(0, max)
    let inverse = most > 0 ? Float(greatest) / most : 0
    factor = BlockFactor(most / Float(greatest))
    levels = exact.map { ScaleSearch.nearest(inverse * $0, within: 0...greatest) }
  }

  /// Takes the factor of the best weighted fit.
  init(fitting exact: [Float], _ weights: [Float], greatest: Int) {
    let fit = RefinedFit(positive: exact, weights, greatest: greatest)
    factor = BlockFactor(fit.scale)
    levels = fit.levels
  }

  /// From -greatest to greatest - 1, of the one of greatest magnitude divided by -greatest; `zero` if
  /// none is as great as `least`.
  init(dividingByExtreme exact: [Float], greatest: Int, least: Float, zero: Float) {
    let extreme = ScaleSearch.extreme(exact)
    let isZero = extreme.magnitude < least
    let inverse = Float(-greatest) / extreme
    factor = BlockFactor(isZero ? 0 : 1 / inverse)
    levels = exact.map { isZero ? zero : ScaleSearch.nearest(inverse * $0, within: -greatest...greatest - 1) }
  }

  /// The same of what fits best, weighted.
  init(fittingSigned exact: [Float], _ weights: [Float], greatest: Int) {
    let fit = LinearFit(exact, weights, greatest: greatest)
    factor = BlockFactor(fit.scale)
    levels = exact.map {
      fit.inverse == 0 ? Float(-greatest) : ScaleSearch.nearest(fit.inverse * $0, within: -greatest...greatest - 1)
    }
  }
}

/// Values and importance of one block, and what all encoders make of them.
struct BlockValues {
  var values: [Float]
  var importance: [Float]?

  /// Above 2^30 no factor of 16 bits is finite; up to there nothing that the searches compute overflows.
  init(_ values: some Sequence<Float>, importance: [Float]?) {
    self.values = values.map { min(max($0, -0x1p30), 0x1p30) }
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

  /// Level = inverse · (value - offset), with the scale before rounding, for one that rounds to zero.
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
