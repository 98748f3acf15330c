import Bytes
import COpenBLAS

/// Products and decompositions of whole matrices, on several workers where that pays.
///
/// LAPACK reads matrices column by column, so a row-major matrix is its transpose there.
struct Lapack {
  let jobs: Int

  /// Rows or columns of a product that one call of BLAS computes.
  private static let blockSize = 512

  /// - Throws: `unsupported` when the library is not there or computes wrongly.
  static func check() throws(Failure) {
    guard let problem = unsafe nibble_lapack_load() else { return }
    throw unsafe Failure(.unsupported, String(cString: problem))
  }

  /// `scale · X · Mᵀ`, or `scale · X · M`.
  func product(
    _ x: FloatMatrix, _ matrix: FloatMatrix, transposed: Bool, scale: Float = 1
  ) throws(Failure) -> FloatMatrix {
    let width = transposed ? matrix.rows : matrix.columns
    precondition(x.columns == (transposed ? matrix.columns : matrix.rows), "matrices that do not fit")
    let result = try FloatMatrix(rows: x.rows, columns: width)
    if result.count == 0 || x.columns == 0 { return result }
    try Blocks(width, of: Self.blockSize, jobs: jobs).perform { (_, range) throws(Failure) in
      let first = transposed ? range.lowerBound * matrix.columns : range.lowerBound
      unsafe x.withValues { a in
        unsafe matrix.withValues { b in
          unsafe result.withValues { c in
            unsafe nibble_sgemm(
              0, transposed ? 1 : 0, Int32(x.rows), Int32(range.count), Int32(x.columns), scale, a, Int32(x.columns),
              b + first, Int32(matrix.columns), 0, c + range.lowerBound, Int32(width))
          }
        }
      }
    }
    return result
  }

  /// Replaces the rows of a matrix by orthonormal ones that span the same, whatever its rank.
  ///
  /// - Parameter x: of at most as many rows as columns.
  /// - Returns: R of `Xᵀ = Q R`, transposed: `X = Rᵀ Qᵀ`, where Qᵀ has taken the place of X.
  func orthonormalize(_ x: FloatMatrix) throws(Failure) -> FloatMatrix {
    let r = try FloatMatrix(rows: x.rows, columns: x.rows)
    var status: Int32 = 0
    unsafe x.withValues { a in
      unsafe r.withValues { b in status = unsafe nibble_qr(Int32(x.columns), Int32(x.rows), a, b) }
    }
    try check(status, "QR")
    return r
  }

  /// Singular values of a matrix, largest first.
  func singularValues(_ x: FloatMatrix) throws(Failure) -> [Float] {
    let copy = try x.copy()
    var values = [Float](repeating: 0, count: min(x.rows, x.columns))
    var status: Int32 = 0
    unsafe copy.withValues { a in
      unsafe values.withUnsafeMutableBufferPointer { values in
        status = unsafe nibble_svd(Int32(x.columns), Int32(x.rows), a, values.baseAddress, nil, nil)
      }
    }
    try check(status, "the singular values")
    return values
  }

  /// `X = U diag(values) Vᵀ`, of the economy size.
  ///
  /// - Parameter x: is overwritten.
  /// - Returns: U `[rows, k]`, Vᵀ `[k, columns]`.
  func decompose(
    _ x: FloatMatrix
  ) throws(Failure) -> (u: FloatMatrix, values: [Float], vt: FloatMatrix) {
    let k = min(x.rows, x.columns)
    let u = try FloatMatrix(rows: x.rows, columns: k)
    let vt = try FloatMatrix(rows: k, columns: x.columns)
    var values = [Float](repeating: 0, count: k)
    var status: Int32 = 0
    unsafe x.withValues { a in
      unsafe u.withValues { left in
        unsafe vt.withValues { right in
          unsafe values.withUnsafeMutableBufferPointer { values in
            // Column by column Xᵀ = V diag(values) Uᵀ stands there: V is Vᵀ row by row, and Uᵀ is U.
            status = unsafe nibble_svd(Int32(x.columns), Int32(x.rows), a, values.baseAddress, right, left)
          }
        }
      }
    }
    try check(status, "the singular vectors")
    return (u, values, vt)
  }

  private func check(_ status: Int32, _ what: String) throws(Failure) {
    if status == 0 { return }
    if status == NIBBLE_NO_MEMORY { throw Failure(.io, "no memory to compute \(what)") }
    // The values are at fault: finite ones whose products are not, or a series that does not converge.
    throw Failure(.malformed, "\(what) of the change cannot be computed (LAPACK says \(status))")
  }
}
