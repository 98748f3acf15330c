import Bytes
import Quantization
import TestSupport
import Testing

@testable import Calibration

@Suite struct FeedbackTests {
  /// Correlations of inputs that go together, `[columns, columns]`: of as many samples as asked for.
  static func correlations(_ columns: Int, samples: Int) -> [Float] {
    var generator = SplitMix64(seed: 3)
    func number() -> Float { Float.random(in: -1...1, using: &generator) }
    var sums = [Float](repeating: 0, count: columns * columns)
    for _ in 0..<samples {
      let common = number()
      let row = (0..<columns).map { common * Float($0 % 5) + 0.3 * number() }
      for i in 0..<columns { for j in 0..<columns { sums[i * columns + j] += row[i] * row[j] } }
    }
    return sums
  }

  /// H (RᵀR) is the identity, as far as 32 bits go at the condition that the damping leaves.
  @Test func factorOfTheInverse() throws {
    let columns = 48
    let correlations = Self.correlations(columns, samples: 400)
    let factor = try InverseFactor(correlations, columns: columns)
    #expect(factor.damping == 0.01)
    let mean = (0..<columns).reduce(0.0) { $0 + Double(correlations[$1 * columns + $1]) } / Double(columns)
    for i in 0..<columns {
      for j in 0..<columns {
        if j < i { #expect(factor.values[i * columns + j] == 0) }
        var sum = 0.0
        for k in 0..<columns {
          var inverse = 0.0
          for l in 0..<columns {
            inverse += Double(factor.values[l * columns + k]) * Double(factor.values[l * columns + j])
          }
          sum += (Double(correlations[i * columns + k]) + (i == k ? 0.01 * mean : 0)) * inverse
        }
        // The condition is at most the trace over the damping: 48 / 0.01; 2^-24 of that for each of 48 sums.
        #expect(abs(sum - (i == j ? 1 : 0)) < 4800 * 48 * 0x1p-24)
      }
    }
  }

  /// Fewer samples than columns are damped; what no inputs have is refused.
  @Test func singular() throws {
    #expect(try InverseFactor(Self.correlations(32, samples: 3), columns: 32).damping == 0.01)
    var odd = Self.correlations(8, samples: 50)
    odd[1] = 1000
    odd[8] = 1000
    let failure = #expect(throws: Failure.self) { try InverseFactor(odd, columns: 8) }
    #expect(failure?.code == .malformed)
    #expect(throws: Failure.self) { try InverseFactor([Float](repeating: 0, count: 64), columns: 8) }
  }

  /// Columns in another order: the file has them where they were, and what is lost is what the correlations say.
  @Test func anyOrder() throws {
    let (rows, columns, size) = (8, 256, 64)
    var generator = SplitMix64(seed: 9)
    let values = (0..<rows * columns).map { _ in Float.random(in: -1...1, using: &generator) }
    let correlations = Self.correlations(columns, samples: 500)
    let format = try #require(FourBitFormat(code: .nf4, blockSize: size))
    // The second half of the blocks first, each from its last column to its first.
    let order = [2, 3, 0, 1].flatMap { block in (0..<size).reversed().map { block * size + $0 } }
    let moved = order.flatMap { i in order.map { j in correlations[i * columns + j] } }
    let factor = try InverseFactor(columns: columns, order: order) { moved }
    let here = Feedback(format: format, factor: factor, search: FourBitSearch())(values, groups: [4.2])
    // The same as of weights that lie in that order themselves.
    let plain = try InverseFactor(moved, columns: columns)
    let turned = (0..<rows).flatMap { row in order.map { values[row * columns + $0] } }
    let there = Feedback(format: format, factor: plain, search: FourBitSearch())(turned, groups: [4.2])
    for row in 0..<rows {
      for (place, column) in order.enumerated() {
        #expect(here.code(row * columns + column) == there.code(row * columns + place))
        #expect(
          here.scaleCodes[(row * columns + column) / size] == there.scaleCodes[(row * columns + place) / size])
      }
    }
  }

  @Test func largestInputsFirst() {
    let means: [Float] = [1, 2, 5, 5, 9, 0, 3, 3]
    #expect(ColumnOrder.activation.columns(means, blocks: [2]) == [2, 3, 4, 5, 6, 7, 1, 0])
    #expect(ColumnOrder.activation.columns(means, blocks: [1]) == [4, 2, 3, 6, 7, 1, 0, 5])
    #expect(ColumnOrder.stored.columns(means, blocks: [2]) == Array(0..<8))
  }

  /// The products with such inputs lose less than with scales that are searched alone.
  @Test func lessLoss() throws {
    let (rows, columns) = (24, 256)
    var generator = SplitMix64(seed: 5)
    let values = (0..<rows * columns).map { _ in
      (0..<4).reduce(Float(0)) { sum, _ in sum + Float.random(in: -1...1, using: &generator) }
    }
    let correlations = Self.correlations(columns, samples: 500)
    let factor = try InverseFactor(correlations, columns: columns)
    let format = try #require(FourBitFormat(code: .nf4, blockSize: 64))
    let groups = [Float](repeating: 4.2, count: 1)
    let whole = Feedback(format: format, factor: factor, search: FourBitSearch())(values, groups: groups)
    // Nothing to make good where inputs do not go together.
    var diagonal = [Float](repeating: 0, count: columns * columns)
    for column in 0..<columns { diagonal[column * columns + column] = correlations[column * columns + column] }
    let plain = Feedback(
      format: format, factor: try InverseFactor(diagonal, columns: columns), search: FourBitSearch())(
        values, groups: groups)
    #expect(Self.loss(whole, values, columns, correlations) < 0.3 * Self.loss(plain, values, columns, correlations))
  }

  /// The same of compressed-tensors' formats, with scales that are searched and without.
  @Test(arguments: [ScaledFormat.int4(groupSize: 32), .nvfp4, .mxfp4].compactMap(\.self), [true, false])
  func lessLossOfScaled(_ format: ScaledFormat, isSearched: Bool) throws {
    let (rows, columns) = (24, 128)
    var generator = SplitMix64(seed: 5)
    let values = (0..<rows * columns).map { _ in
      (0..<4).reduce(Float(0)) { sum, _ in sum + Float.random(in: -1...1, using: &generator) }
    }
    let correlations = Self.correlations(columns, samples: 500)
    var diagonal = [Float](repeating: 0, count: columns * columns)
    for column in 0..<columns { diagonal[column * columns + column] = correlations[column * columns + column] }
    // 448 · 6 over the largest magnitude.
    let globalScale: Float = 700
    let losses = try [correlations, diagonal].map { inputs in
      let factor = try InverseFactor(inputs, columns: columns)
      let feedback = try #require(
        ScaledFeedback(
          format: format, as: .f32, globalScale: globalScale, factor: factor,
          search: isSearched ? ScaledSearch() : nil))
      let found = try feedback(values)
      let divisors = format.divisors(found.scales, as: .f32, globalScale: globalScale)
      let levels: [Float] = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
      let differences = values.indices.map { index in
        let code = Int(found.codes[index / 2] >> (index % 2 * 4) & 15)
        let level = format.kind == .int4 ? Float(code - 8) : levels[code & 7] * (code > 7 ? -1 : 1)
        return Double(values[index]) - Double(level * divisors[index / (format.blockColumns ?? 1)])
      }
      return Self.loss(differences, columns, correlations)
    }
    #expect(losses[0] < 0.3 * losses[1], "\(losses)")
  }

  /// The sum over rows of e·H·eᵀ, e what a row is away from its original.
  private static func loss(_ rows: Feedback.Rows, _ values: [Float], _ columns: Int, _ correlations: [Float]) -> Double
  {
    let levels = FourBitCode.nf4.levels
    let map = DoubleQuantization.map
    let differences = values.indices.map { index in
      let byte = rows.codes[index / 2]
      let level = levels[Int(index % 2 == 0 ? byte >> 4 : byte & 15)]
      return Double(values[index]) - Double(level * (map[Int(rows.scaleCodes[index / 64])] * 4.2))
    }
    return loss(differences, columns, correlations)
  }

  private static func loss(_ differences: [Double], _ columns: Int, _ correlations: [Float]) -> Double {
    var sum = 0.0
    for row in stride(from: 0, to: differences.count, by: columns) {
      for i in 0..<columns {
        var product = 0.0
        for j in 0..<columns { product += Double(correlations[i * columns + j]) * differences[row + j] }
        sum += product * differences[row + i]
      }
    }
    return sum
  }
}

extension Feedback.Rows {
  fileprivate func code(_ index: Int) -> UInt8 { index % 2 == 0 ? codes[index / 2] >> 4 : codes[index / 2] & 15 }
}
