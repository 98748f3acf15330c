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
