package import Bytes
import COpenBLAS

/// The upper factor R of the inverse of an input's correlations, H⁻¹ = RᵀR: what the error in one column is made good
/// with in the columns behind it (GPTQ, arXiv:2210.17323, whose Cholesky form this is).
package struct InverseFactor: Sendable {
  package let columns: Int
  /// `[columns, columns]`, row by row, zero below the diagonal.
  package let values: [Float]
  /// What was added to the diagonal, relative to its mean.
  package let damping: Float

  /// - Parameters:
  ///   - correlations: `[columns, columns]`, symmetric; columns that no input ever reaches are zero.
  ///   - damping: added to the diagonal, relative to its mean; ten times as much where that is too little.
  /// - Throws: `unsupported` without LAPACK; `malformed` for what is not positive definite with the diagonal doubled.
  package init(_ correlations: [Float], columns: Int, damping: Float = 0.01) throws(Failure) {
    if let problem = unsafe nibble_lapack_load() { throw Failure(.unsupported, unsafe String(cString: problem)) }
    guard columns <= Int(Int32.max), correlations.count == columns * columns else {
      throw Failure(.internal, "\(correlations.count) correlations of \(columns) columns")
    }
    var sum = 0.0
    for column in 0..<columns { sum += Double(correlations[column * columns + column]) }
    let mean = Float(sum / Double(columns))
    guard mean > 0 else { throw Failure(.malformed, "has no input that is not zero") }
    var damping = damping
    while true {
      var values = correlations
      for column in 0..<columns { values[column * columns + column] += damping * mean }
      let status = unsafe nibble_inverse_factor(Int32(columns), &values)
      if status == 0, values.allSatisfy(\.isFinite) {
        (self.columns, self.values, self.damping) = (columns, values, damping)
        return
      }
      damping *= 10
      guard damping <= 1 else {
        throw Failure(.malformed, "its correlations are not those of any inputs: they are not positive definite")
      }
    }
  }

  /// What an error in each column costs that nothing behind it can make good: one over the square of the diagonal.
  package var weights: [Float] {
    (0..<columns).map { column in
      let diagonal = values[column * columns + column]
      return 1 / (diagonal * diagonal)
    }
  }
}
