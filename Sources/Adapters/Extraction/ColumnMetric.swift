package import Bytes
import COpenBLAS

/// What an error in each column of a matrix counts: with H = L Lᵀ, the squared error of E is tr(E H Eᵀ) = ‖E L‖².
package enum ColumnMetric: Sendable {
  case alike
  /// H has these on its diagonal, all above 0, and nothing else.
  case diagonal([Float])
  /// The upper R with H⁻¹ = RᵀR, row by row, zero below the diagonal: L is its inverse.
  case inverseFactor([Float])

  /// Rows that one worker divides at a time.
  private static let blockSize = 64

  /// E becomes E L.
  ///
  /// - Parameter jobs: workers; the result does not depend on their number.
  /// - Throws: `unsupported` when the library that divides is not there.
  package func weigh(_ matrix: FloatMatrix, jobs: Int) throws(Failure) {
    let columns = matrix.columns
    switch self {
    case .alike: return
    case .diagonal(let values):
      precondition(values.count == columns, "one for each column")
      let roots = values.map { $0.squareRoot() }
      for row in 0..<matrix.rows {
        var part = matrix.part(row * columns..<(row + 1) * columns)
        for column in 0..<columns { part[column] *= roots[column] }
      }
    case .inverseFactor(let factor):
      precondition(factor.count == columns * columns, "a square factor")
      try Lapack.check()
      try Blocks(matrix.rows, of: Self.blockSize, jobs: jobs).perform { (_, rows) throws(Failure) in
        unsafe matrix.withValues { values in
          unsafe factor.withUnsafeBufferPointer { factor in
            guard let factor = factor.baseAddress else { return }
            unsafe nibble_divide_upper(
              Int32(rows.count), Int32(columns), factor, values + rows.lowerBound * columns)
          }
        }
      }
    }
  }

  /// A becomes A L⁻¹.
  package func unweigh(_ matrix: FloatMatrix, jobs: Int) throws(Failure) -> FloatMatrix {
    let columns = matrix.columns
    switch self {
    case .alike: return matrix
    case .diagonal(let values):
      precondition(values.count == columns, "one for each column")
      let roots = values.map { $0.squareRoot() }
      for row in 0..<matrix.rows {
        var part = matrix.part(row * columns..<(row + 1) * columns)
        for column in 0..<columns { part[column] /= roots[column] }
      }
      return matrix
    case .inverseFactor(let factor):
      precondition(factor.count == columns * columns, "a square factor")
      try Lapack.check()
      let result = try FloatMatrix(rows: matrix.rows, columns: columns)
      try Blocks(columns, of: Self.blockSize, jobs: jobs).perform { (_, range) throws(Failure) in
        unsafe matrix.withValues { a in
          unsafe factor.withUnsafeBufferPointer { factor in
            unsafe result.withValues { c in
              guard let b = factor.baseAddress else { return }
              // Below the diagonal there is nothing.
              unsafe nibble_sgemm(
                0, 0, Int32(matrix.rows), Int32(range.count), Int32(range.upperBound), 1, a, Int32(columns),
                b + range.lowerBound, Int32(columns), 0, c + range.lowerBound, Int32(columns))
            }
          }
        }
      }
      return result
    }
  }
}
