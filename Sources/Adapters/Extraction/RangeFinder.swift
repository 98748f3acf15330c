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

  /// Iterations go on until what further ones would capture, as the last two let expect, is less than this part of
  /// ‖M‖².
  static let enough = 2e-5
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
    var q = try lapack.product(start(width, matrix.columns), matrix, transposed: true, scale: scale)
    _ = try lapack.orthonormalize(q)
    var convergence = Convergence(total: norm * norm)
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

  /// How far the captured energy has come. What an iteration adds shrinks by a ratio that itself grows slowly
  /// towards its limit, (σ of the first vector left out / σ of the last wanted)⁴.
  private struct Convergence {
    let total: Double
    private var energy = 0.0
    private var gain = 0.0
    private var count = 0
    private var expected = Double.infinity

    init(total: Double) { self.total = total }

    mutating func add(_ energy: Double) {
      let newGain = energy - self.energy
      let ratio = gain > 0 ? min(max(newGain / gain, 0), 0.99) : 1
      expected = ratio < 1 ? newGain * max(ratio, 0.5) / (1 - ratio) : .infinity
      self.energy = energy
      gain = newGain
      count += 1
    }

    var isReached: Bool { count > 1 && expected <= RangeFinder.enough * total || count == RangeFinder.iterationLimit }
  }

  /// The same values on every machine, uniform in [-1, 1).
  private func start(_ rows: Int, _ columns: Int) throws(Failure) -> FloatMatrix {
    let matrix = try FloatMatrix(rows: rows, columns: columns)
    var random = SplitMix(state: 0x6E69_6262_6C65)
    for row in 0..<rows {
      for column in 0..<columns {
        matrix[row, column] = Float(Int32(truncatingIfNeeded: random.next() >> 40) - (1 << 23)) * 0x1p-23
      }
    }
    return matrix
  }
}
