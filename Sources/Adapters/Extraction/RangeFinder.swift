import Bytes

/// The leading singular vectors of a large matrix, by random projection and subspace iteration: algorithms 4.4 and
/// 5.1 of Halko, Martinsson and Tropp 2011 (arXiv:0909.4061).
///
/// Both sides are orthonormalized in every iteration, or small singular values would drown in the rounding of
/// large ones. Nearly all of the time is spent in products of the matrix with a few vectors.
struct RangeFinder {
  let lapack: Lapack
  /// Singular vectors wanted.
  let rank: Int

  /// Reached only where singular values hardly decay.
  static let iterationLimit = 32

  /// Vectors beyond those wanted, which speed up convergence.
  private var oversampling: Int { max(16, rank / 4) }

  /// - Parameter norm: ‖M‖ (Frobenius), roughly.
  /// - Returns: at least `rank` singular values and vectors, unless the matrix has fewer: U `[rows, k]`,
  ///   Vᵀ `[k, columns]`.
  func decompose(
    _ matrix: FloatMatrix, norm: Double
  ) throws(Failure) -> (u: FloatMatrix, values: [Float], vt: FloatMatrix) {
    let width = min(rank + oversampling, min(matrix.rows, matrix.columns))
    // Values near the ends of the range of 32 bits are brought to its middle.
    let exponent = norm > 0 && norm.isFinite ? min(120, max(-120, Int(norm.exponent))) : 0
    let scale = Float(sign: .plus, exponent: -exponent, significand: 1)
    // Qᵀ, rows that span nearly what M's columns do.
    var q = try lapack.product(.start(width, matrix.columns), matrix, transposed: true, scale: scale)
    _ = try lapack.orthonormalize(q)
    var convergence = Convergence(total: norm * norm, limit: Self.iterationLimit)
    while true {
      try Interruption.check()
      // Qᵀ M = Rᵀ Pᵀ; P is in the place of the product.
      let p = try lapack.product(q, matrix, transposed: false)
      let r = try lapack.orthonormalize(p)
      let energy = try lapack.singularValues(r).prefix(rank).reduce(0) { $0 + Double($1) * Double($1) }
      convergence.add(energy)
      if convergence.isReached || width == min(matrix.rows, matrix.columns) {
        // M ≈ Q Qᵀ M = Q (U S Vᵀ) Pᵀ.
        let (u, values, vt) = try lapack.decompose(r)
        return (
          u: try lapack.product(u.transposed(), q, transposed: false).transposed(), values: values,
          vt: try lapack.product(vt, p, transposed: false)
        )
      }
      q = try lapack.product(p, matrix, transposed: true)
      _ = try lapack.orthonormalize(q)
    }
  }
}
