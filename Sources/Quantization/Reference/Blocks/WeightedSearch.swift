/// A kind of 32 values whose scale, and offset where it has one, are searched for when some columns matter more
/// than others.
protocol WeightedBlockEncoder: BlockEncoder {
  /// Values are `d · code`, or `d · code + m`, with codes in this range.
  static var codes: ClosedRange<Float> { get }
  static var hasOffset: Bool { get }

  /// - Parameter codes: 32, counted from the least.
  static func store(d: Float, m: Float, codes: [UInt8], into block: UnsafeMutableRawBufferPointer)
}

extension WeightedBlockEncoder {
  /// Encodes one row.
  ///
  /// An error counts by the importance of its column times √(mean square of the row + square of the value), as
  /// in ggml. Each candidate scale gives codes, these by least squares a scale and an offset, and they codes and
  /// a scale once more; what leaves the least error after rounding to 16 bits is taken. ggml fits once, rounds
  /// codes before the scale, and holds offsets to zero or below.
  ///
  /// - Parameter importance: one for each value.
  static func encode(_ row: [Float], importance: [Float], into blocks: UnsafeMutableRawBufferPointer) {
    let meanSquare = meanSquare(row)
    let bytes = fields.reduce(0) { $0 + $1.byteCount }
    for start in stride(from: 0, to: row.count, by: 32) {
      let values = Array(row[start..<start + 32])
      let block = unsafe UnsafeMutableRawBufferPointer(rebasing: blocks[start / 32 * bytes..<(start / 32 + 1) * bytes])
      let search = WeightedSearch(values, Array(importance[start..<start + 32]), meanSquare, codes, hasOffset)
      if let (d, m) = search.result {
        let inverse = search.inverse(d)
        let found = values.map { UInt8(search.nearest(($0 - m) * inverse) - codes.lowerBound) }
        unsafe store(d: d, m: m, codes: found, into: block)
      } else {
        unsafe values.withUnsafeBufferPointer { unsafe encode($0, into: block) }
      }
    }
  }

  private static func meanSquare(_ row: [Float]) -> Float {
    var sums = [Double](repeating: 0, count: 8)
    for (index, value) in row.enumerated() { sums[index % 8] += Double(value) * Double(value) }
    return Float(Reference.total(sums) / Double(row.count))
  }
}

/// The search in one block of 32 values.
private struct WeightedSearch {
  private let values: [Float]
  private var weights: [Float]
  private let codes: ClosedRange<Float>
  private let hasOffset: Bool
  private var sumOfWeights: Float = 0
  private var weightedSum: Float = 0

  init(
    _ values: [Float], _ importance: [Float], _ meanSquare: Float, _ codes: ClosedRange<Float>, _ hasOffset: Bool
  ) {
    self.values = values
    self.codes = codes
    self.hasOffset = hasOffset
    weights = zip(values, importance).map { value, importance in
      min(importance * (meanSquare + value * value).squareRoot(), 1e30)
    }
    let largest = weights.reduce(0, max)
    // Where no column matters, all do.
    weights = weights.map { largest > 0 ? $0 / largest : 1 }
    for (weight, value) in zip(weights, values) {
      sumOfWeights += weight
      weightedSum += weight * value
    }
  }

  /// The best scale and offset; nil where the values are too small, or too large, for 16-bit scales.
  var result: (d: Float, m: Float)? {
    let low = values.reduce(values[0], min)
    let high = values.reduce(values[0], max)
    // Without an offset the largest magnitude, with its sign.
    let range = hasOffset ? high - low : high >= -low ? high : low
    guard range.magnitude > 1e-15, max(-low, high) < 4e6 else { return nil }
    var best: (d: Float, m: Float)?
    var least = Float.infinity
    for candidate in candidates {
      var (d, m) = fit(candidate / range, hasOffset ? low : 0)
      (d, m) = fit(inverse(d), m)
      (d, m) = (rounded(d), rounded(m))
      let error = error(d, m)
      if error < least { (best, least) = ((d, m), error) }
    }
    return best
  }

  /// Codes that the largest magnitude, or the range, gets: around both ends, or around the upper one.
  private var candidates: [Float] {
    if hasOffset { return (0..<48).map { codes.upperBound + Float($0 - 20) / 20 } }
    return (0..<19).map { codes.lowerBound + Float(9 - $0) / 10 }
      + (19..<32).map { codes.upperBound + Float($0 - 25) / 10 }
  }

  func nearest(_ scaled: Float) -> Float {
    min(max(scaled.rounded(.toNearestOrEven), codes.lowerBound), codes.upperBound)
  }

  func inverse(_ d: Float) -> Float { d == 0 ? 0 : 1 / d }

  private func rounded(_ value: Float) -> Float {
    let format = BinaryFormat.f16
    return Float(format.value(bits: format.bits(rounding: Double(value))))
  }

  private func fit(_ inverse: Float, _ base: Float) -> (d: Float, m: Float) {
    var sum: Float = 0
    var squares: Float = 0
    var products: Float = 0
    for (value, weight) in zip(values, weights) {
      let code = nearest((hasOffset ? value - base : value) * inverse)
      sum += weight * code
      squares += weight * code * code
      products += weight * code * value
    }
    guard hasOffset else { return (quotient(products, squares), 0) }
    let d = quotient(sumOfWeights * products - weightedSum * sum, sumOfWeights * squares - sum * sum)
    return (d, (weightedSum - d * sum) / sumOfWeights)
  }

  /// Zero where the divisor is too small to mean anything.
  private func quotient(_ dividend: Float, _ divisor: Float) -> Float { divisor > 1e-20 ? dividend / divisor : 0 }

  private func error(_ d: Float, _ m: Float) -> Float {
    let inverse = inverse(d)
    var error: Float = 0
    for (value, weight) in zip(values, weights) {
      let above = hasOffset ? value - m : value
      let difference = d * nearest(above * inverse) - above
      error += weight * (difference * difference)
    }
    return error
  }
}
