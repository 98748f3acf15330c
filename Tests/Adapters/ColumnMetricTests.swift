import Adapters
import Bytes
import TestSupport
import Testing

/// Errors whose columns do not count alike.
@Suite struct ColumnMetricTests {
  private static let (rows, columns) = (40, 24)

  private func random(_ rows: Int, _ columns: Int, seed: UInt64) throws -> FloatMatrix {
    var random = SplitMix64(seed: seed)
    return try FloatMatrix(
      rows: rows, columns: columns, (0..<rows * columns).map { _ in Float.random(in: -1...1, using: &random) })
  }

  /// Upper, well away from singular.
  private func factor(_ size: Int) -> [Float] {
    var random = SplitMix64(seed: 3)
    return (0..<size * size).map { index in
      let (row, column) = (index / size, index % size)
      if row == column { return Float.random(in: 0.5...2, using: &random) }
      return row < column ? Float.random(in: -0.2...0.2, using: &random) : 0
    }
  }

  /// tr(E H Eᵀ) with H⁻¹ = RᵀR: the square of X with X R = E, by substitution in 64 bits.
  private func squares(_ error: [Double], _ factor: [Float], _ size: Int) -> Double {
    var total = 0.0
    for start in stride(from: 0, to: error.count, by: size) {
      var x = [Double](repeating: 0, count: size)
      for column in 0..<size {
        let before = (0..<column).reduce(0.0) { $0 + x[$1] * Double(factor[$1 * size + column]) }
        x[column] = (error[start + column] - before) / Double(factor[column * size + column])
        total += x[column] * x[column]
      }
    }
    return total
  }

  private func squares(_ matrix: FloatMatrix) -> Double { matrix.array.reduce(0) { $0 + Double($1) * Double($1) } }

  private func rest(_ error: [Float], _ left: FloatMatrix, _ right: FloatMatrix) -> [Double] {
    error.indices.map { index in
      let (row, column) = (index / right.columns, index % right.columns)
      return (0..<right.rows).reduce(Double(error[index])) { $0 - Double(left[row, $1]) * Double(right[$1, column]) }
    }
  }

  @Test func weighsAndBack() throws {
    let factor = factor(Self.columns)
    let diagonal = (0..<Self.columns).map { Float(1 + $0) / 8 }
    for metric in [ColumnMetric.alike, .diagonal(diagonal), .inverseFactor(factor)] {
      let matrix = try random(Self.rows, Self.columns, seed: 1)
      let before = matrix.array
      try metric.weigh(matrix, jobs: 2)
      let expected =
        switch metric {
        case .alike: before.reduce(0) { $0 + Double($1) * Double($1) }
        case .diagonal(let values):
          before.enumerated().reduce(0) {
            $0 + Double($1.element) * Double($1.element) * Double(values[$1.offset % Self.columns])
          }
        case .inverseFactor: squares(before.map(Double.init), factor, Self.columns)
        }
      #expect((squares(matrix) - expected).magnitude < 1e-4 * expected)
      let after = try metric.unweigh(matrix, jobs: 2).array
      #expect(zip(before, after).allSatisfy { ($0 - $1).magnitude < 1e-4 })
    }
  }

  /// What is left of the error counts as little as singular values let it, and less than of one that was not weighed.
  @Test(arguments: [1, 5])
  func leavesTheLeast(rank: Int) throws {
    let factor = factor(Self.columns)
    let metric = ColumnMetric.inverseFactor(factor)
    let error = try random(Self.rows, Self.columns, seed: 2).array
    let weighed = try FloatMatrix(rows: Self.rows, columns: Self.columns, error)
    try metric.weigh(weighed, jobs: 1)
    let norm = squares(weighed).squareRoot()
    let all = try LowRankApproximation(ofError: weighed, rank: Self.columns, norm: norm, jobs: 1).singularValues
    let best = all.dropFirst(rank).reduce(0.0) { $0 + Double($1) * Double($1) }
    let found = try LowRankApproximation(ofError: weighed, rank: rank, norm: norm, jobs: 1)
    let right = try metric.unweigh(found.right, jobs: 1)
    let loss = squares(rest(error, found.left, right), factor, Self.columns)
    #expect((loss - best).magnitude < 1e-4 * best)
    let plain = try FloatMatrix(rows: Self.rows, columns: Self.columns, error)
    let unweighed = try LowRankApproximation(
      ofError: plain, rank: rank, norm: squares(plain).squareRoot(), jobs: 1)
    #expect(loss < squares(rest(error, unweighed.left, unweighed.right), factor, Self.columns))
  }

  @Test func jobsDoNotMatter() throws {
    let metric = ColumnMetric.inverseFactor(factor(200))
    let results = try [1, 2, 5].map { jobs in
      let matrix = try random(150, 200, seed: 4)
      try metric.weigh(matrix, jobs: jobs)
      return (matrix.array, try metric.unweigh(matrix, jobs: jobs).array)
    }
    for other in results.dropFirst() { #expect(other == results[0]) }
  }
}
