package import Bytes

/// The best approximation of a matrix by one of low rank: `M ≈ left · right`, the truncated singular value
/// decomposition (Eckart and Young 1936) with the roots of the singular values on both sides.
package struct LowRankApproximation: Sendable {
  /// `U √S`: `[rows, rank]`.
  package let left: FloatMatrix
  /// `√S Vᵀ`: `[rank, columns]`.
  package let right: FloatMatrix
  /// As many as the rank that was asked for, largest first; zero from where the matrix has no more.
  package let singularValues: [Float]

  /// Singular values that are not zero.
  package var rank: Int { singularValues.prefix { $0 > 0 }.count }

  /// Up to this many rows or columns the whole decomposition is cheap enough.
  static let exactLimit = 256

  /// - Parameters:
  ///   - matrix: of finite values.
  ///   - rank: columns of `left` and rows of `right`; what the matrix cannot fill is zero.
  ///   - norm: the matrix's Frobenius norm, roughly.
  ///   - jobs: workers; the result does not depend on their number.
  /// - Throws: `unsupported` when the library that decomposes is not there, `internal` when it fails.
  package init(of matrix: FloatMatrix, rank: Int, norm: Double, jobs: Int) throws(Failure) {
    try Lapack.check()
    let lapack = Lapack(jobs: jobs)
    let smaller = min(matrix.rows, matrix.columns)
    let found: Decomposition
    if smaller <= Self.exactLimit {
      found = try lapack.decompose(matrix.copy())
    } else {
      found = try RangeFinder(lapack: lapack, rank: min(rank, smaller)).decompose(matrix, norm: norm)
    }
    try self.init(found, rows: matrix.rows, columns: matrix.columns, rank: rank)
  }

  /// The same for a matrix whose singular values hardly decay, by another way to the same end.
  package init(ofError matrix: FloatMatrix, rank: Int, norm: Double, jobs: Int) throws(Failure) {
    try Lapack.check()
    let lapack = Lapack(jobs: jobs)
    let found: Decomposition
    if min(matrix.rows, matrix.columns) <= Self.exactLimit || norm == 0 {
      found =
        norm > 0
        ? try lapack.decompose(matrix.copy())
        : (try FloatMatrix(rows: matrix.rows, columns: 0), [], try FloatMatrix(rows: 0, columns: matrix.columns))
    } else {
      found = try BlockKrylov(lapack: lapack, rank: rank).decompose(matrix, norm: norm)
    }
    try self.init(found, rows: matrix.rows, columns: matrix.columns, rank: rank)
  }

  private typealias Decomposition = (u: FloatMatrix, values: [Float], vt: FloatMatrix)

  private init(_ found: Decomposition, rows: Int, columns: Int, rank: Int) throws(Failure) {
    // Below this, what is left of a matrix of lower rank is rounding: the bound on the error of singular values
    // (LAPACK Users' Guide, 4.9) with the usual growth by the root of the size.
    let size = Float(max(rows, columns))
    let least = (found.values.first ?? 0) * .ulpOfOne * size.squareRoot()
    let kept = found.values.prefix(rank).prefix { $0 > least }.count
    let left = try FloatMatrix(rows: rows, columns: rank)
    let right = try FloatMatrix(rows: rank, columns: columns)
    for column in 0..<kept {
      let root = found.values[column].squareRoot()
      for row in 0..<rows { left[row, column] = found.u[row, column] * root }
      for index in 0..<columns { right[column, index] = found.vt[column, index] * root }
    }
    self.left = left
    self.right = right
    singularValues = Array(found.values.prefix(kept)) + Array(repeating: 0, count: rank - kept)
  }
}
