import Adapters
import Bytes
import Quantization
import TestSupport
import Testing

/// Truncated singular value decompositions of matrices whose singular values are known.
@Suite struct LowRankApproximationTests {
  /// A matrix of any shape with these singular values, turned by reflections on both sides.
  private func matrix(_ rows: Int, _ columns: Int, _ values: [Double], scale: Double = 1) throws -> FloatMatrix {
    var random = SplitMix64(seed: 7)
    var result = [Double](repeating: 0, count: rows * columns)
    for (index, value) in values.enumerated() { result[index * columns + index] = value }
    for _ in 0..<2 {
      let u = (0..<rows).map { _ in Double.random(in: -1...1, using: &random) }
      let v = (0..<columns).map { _ in Double.random(in: -1...1, using: &random) }
      let (uu, vv) = (u.reduce(0) { $0 + $1 * $1 }, v.reduce(0) { $0 + $1 * $1 })
      var left = [Double](repeating: 0, count: columns)
      for (index, value) in result.enumerated() { left[index % columns] += u[index / columns] * value }
      for index in result.indices { result[index] -= 2 * u[index / columns] * left[index % columns] / uu }
      var right = [Double](repeating: 0, count: rows)
      for (index, value) in result.enumerated() { right[index / columns] += value * v[index % columns] }
      for index in result.indices { result[index] -= 2 * right[index / columns] * v[index % columns] / vv }
    }
    return try FloatMatrix(rows: rows, columns: columns, result.map { Float($0 * scale) })
  }

  private func approximate(
    _ matrix: FloatMatrix, rank: Int, jobs: Int = 2, isError: Bool = false
  ) throws -> (result: LowRankApproximation, energy: Double) {
    let norm = matrix.array.reduce(0) { $0 + Double($1) * Double($1) }.squareRoot()
    let result =
      isError
      ? try LowRankApproximation(ofError: matrix, rank: rank, norm: norm, jobs: jobs)
      : try LowRankApproximation(of: matrix, rank: rank, norm: norm, jobs: jobs)
    #expect(result.left.rows == matrix.rows && result.left.columns == rank)
    #expect(result.right.rows == rank && result.right.columns == matrix.columns)
    #expect(result.singularValues.count == rank && result.singularValues == result.singularValues.sorted(by: >))
    let squares = try FactorResidual.squares(matrix, left: result.left, right: result.right, jobs: jobs)
    #expect((squares.whole.squareRoot() - norm).magnitude <= 1e-9 * norm)
    return (result, squares.whole > 0 ? 1 - squares.residual / squares.whole : 1)
  }

  private func energy(_ values: [Double], rank: Int) -> Double {
    let squares = values.map { $0 * $0 }
    return squares.sorted(by: >).prefix(rank).reduce(0, +) / squares.reduce(0, +)
  }

  // MARK: - Small: decomposed whole

  @Test(arguments: [(12, 12), (40, 9), (9, 40), (1, 7), (7, 1), (200, 300), (300, 200), (1, 1)])
  func knownValues(_ rows: Int, _ columns: Int) throws {
    let values = (0..<min(rows, columns)).map { 1 / Double(1 + $0) }
    let m = try matrix(rows, columns, values)
    for rank in [1, 3, 8] {
      let (result, energy) = try approximate(m, rank: rank)
      #expect((energy - self.energy(values, rank: rank)).magnitude < 1e-6)
      for (found, value) in zip(result.singularValues, values) { #expect((Double(found) - value).magnitude < 1e-5) }
      #expect(result.rank == min(rank, values.count))
    }
  }

  /// B and A share the singular values between them: the columns of one are as long as the rows of the other.
  @Test func rootsOnBothSides() throws {
    let (result, _) = try approximate(matrix(30, 20, [9, 4, 1]), rank: 3)
    for (index, value) in [9.0, 4, 1].enumerated() {
      let left = (0..<30).reduce(0.0) { $0 + Double(result.left[$1, index] * result.left[$1, index]) }
      let right = (0..<20).reduce(0.0) { $0 + Double(result.right[index, $1] * result.right[index, $1]) }
      #expect((left - value).magnitude < 1e-4 && (right - value).magnitude < 1e-4)
    }
  }

  @Test(arguments: [(20, 30), (400, 320), (300, 700)], [false, true])
  func zeroMatrix(_ shape: (rows: Int, columns: Int), isError: Bool) throws {
    let (rows, columns) = shape
    let (result, energy) = try approximate(FloatMatrix(rows: rows, columns: columns), rank: 5, isError: isError)
    #expect(result.rank == 0 && energy == 1)
    #expect(result.left.array.allSatisfy { $0 == 0 } && result.right.array.allSatisfy { $0 == 0 })
  }

  /// What the matrix cannot fill is zero, not rounding.
  @Test(arguments: [(30, 20), (400, 300), (300, 900)], [false, true])
  func lowerRank(_ shape: (rows: Int, columns: Int), isError: Bool) throws {
    let (rows, columns) = shape
    let (result, energy) = try approximate(matrix(rows, columns, [5, 3]), rank: 10, isError: isError)
    #expect(result.rank == 2 && energy > 1 - 1e-9)
    #expect(result.singularValues[2...].allSatisfy { $0 == 0 })
    for index in 2..<10 {
      #expect((0..<rows).allSatisfy { result.left[$0, index] == 0 })
      #expect((0..<columns).allSatisfy { result.right[index, $0] == 0 })
    }
  }

  @Test func moreThanTheSmallerSide() throws {
    let (result, energy) = try approximate(matrix(6, 50, [3, 2, 1, 1, 1, 1]), rank: 9)
    #expect(result.rank == 6 && energy > 1 - 1e-9)
  }

  // MARK: - Large: projected

  @Test(arguments: [(320, 320), (300, 500), (500, 270)], [1, 16, 64])
  func decayingSpectra(_ shape: (rows: Int, columns: Int), _ rank: Int) throws {
    let count = min(shape.rows, shape.columns)
    let spectra: [[Double]] = [
      (0..<count).map { 1 / Double(1 + $0) },
      (0..<count).map { 1 / Double(1 + $0).squareRoot() },
      (0..<count).map { 0.9 ** $0 },
      (0..<count).map { $0 < 16 ? 1 : 0.02 },
      (0..<count).map { 1 - Double($0) / Double(count) },
      (0..<count).map { 0.7 ** $0 },
    ]
    for values in spectra {
      let m = try matrix(shape.rows, shape.columns, values)
      let best = energy(values, rank: rank)
      for isError in [false, true] {
        let (_, found) = try approximate(m, rank: rank, isError: isError)
        #expect(found <= best + 1e-6 && found > best - 1e-4, "\(found) of \(best)")
      }
    }
  }

  /// Without a gap anywhere, as rounding leaves them.
  @Test(arguments: [(300, 400), (400, 300), (300, 300)], [1, 24, 100])
  func flatSpectra(_ shape: (rows: Int, columns: Int), _ rank: Int) throws {
    let values = (0..<300).map { 1 - 0.9 * Double($0) / 300 }
    let (result, found) = try approximate(
      matrix(shape.rows, shape.columns, values), rank: rank, isError: true)
    // Iterations stop where what is left is 2e-5.
    #expect((energy(values, rank: rank) - found).magnitude < 4e-5)
    #expect(result.rank == rank)
  }

  @Test(arguments: [1e-30, 1e-15, 1e15, 1e30], [false, true])
  func extremeSizes(_ scale: Double, isError: Bool) throws {
    let values = (0..<300).map { 1 / Double(1 + $0) }
    let (_, found) = try approximate(matrix(320, 300, values, scale: scale), rank: 16, isError: isError)
    // Squares of the smallest values are below what 32 bits hold; the sums are of 64.
    #expect(found > energy(values, rank: 16) - 1e-4)
  }

  @Test(arguments: [false, true])
  func allOfIt(isError: Bool) throws {
    let values = (0..<300).map { 1 / Double(1 + $0) }
    let (result, found) = try approximate(matrix(300, 310, values), rank: 300, isError: isError)
    #expect(result.rank == 300 && found > 1 - 1e-9)
  }

  @Test(arguments: [false, true])
  func jobsDoNotMatter(isError: Bool) throws {
    for (rows, columns) in [(100, 90), (600, 1100)] {
      let m = try matrix(rows, columns, (0..<80).map { 1 / Double(1 + $0) })
      let results = try [1, 2, 5].map { try approximate(m, rank: 20, jobs: $0, isError: isError) }
      for other in results.dropFirst() {
        #expect(other.result.left.array == results[0].result.left.array)
        #expect(other.result.right.array == results[0].result.right.array)
        #expect(other.energy == results[0].energy)
      }
    }
  }

  // MARK: - Factors as they are stored

  @Test func rounding() throws {
    let m = try matrix(64, 48, [4, 2, 1])
    let (result, whole) = try approximate(m, rank: 3)
    try result.left.round(to: .bf16)
    try result.right.round(to: .bf16)
    #expect(result.left.array.allSatisfy { $0.bitPattern & 0xFFFF == 0 })
    let squares = try FactorResidual.squares(m, left: result.left, right: result.right, jobs: 1)
    let energy = 1 - squares.residual / squares.whole
    #expect(energy < whole && energy > 1 - 2e-5)
    let large = try FloatMatrix(rows: 1, columns: 1, [1e6])
    #expect(throws: Failure.self) { try large.round(to: .f16) }
  }

  @Test func blocksAreDoneOnceAndTheFirstFailureCounts() throws {
    let seen = BlockResults<Range<Int>>(5)
    let blocks = Blocks(43, of: 10, jobs: 3)
    try blocks.perform { (block, range) throws(Failure) in seen.set(block, range) }
    #expect(blocks.number == 5 && seen.all == [0..<10, 10..<20, 20..<30, 30..<40, 40..<43])
    for jobs in [1, 4] {
      #expect(throws: Failure(.malformed, "block 3")) {
        try Blocks(100, of: 1, jobs: jobs).perform { (block, _) throws(Failure) in
          if block >= 3 { throw Failure(.malformed, "block \(block)") }
        }
      }
    }
    try Blocks(0, of: 10, jobs: 2).perform { (_, _) throws(Failure) in throw Failure(.internal, "nothing to do") }
  }
}

infix operator ** : MultiplicationPrecedence

private func ** (base: Double, exponent: Int) -> Double {
  (0..<exponent.magnitude).reduce(1) { result, _ in exponent < 0 ? result / base : result * base }
}
