package import Bytes
import COpenBLAS

/// The upper factor R of the inverse of an input's correlations, H⁻¹ = RᵀR: what the error in one column is made good
/// with in the columns behind it (GPTQ, arXiv:2210.17323, whose Cholesky form this is).
package struct InverseFactor: Sendable {
  package let columns: Int
  /// The column at each place: which one is quantized first, and so on.
  package let order: [Int]
  /// `[columns, columns]` in that order, row by row, zero below the diagonal.
  package let values: [Float]
  /// What was added to the diagonal, relative to its mean.
  package let damping: Float

  private static let leastDamping: Float = 0x1p-13

  /// - Parameters:
  ///   - correlations: gives `[columns, columns]`, symmetric, in which the factor is made; it is asked once more where
  ///     that did not succeed. Columns that no input ever reaches are zero.
  ///   - order: of the columns, in which the correlations lie already; nil for their own.
  ///   - damping: added to the diagonal, relative to its mean; ten times as much where that is too little.
  /// - Throws: `unsupported` without LAPACK; `malformed` for what is not positive definite with the diagonal doubled.
  package init(
    columns: Int, order: [Int]? = nil, damping: Float = 0.01, of correlations: () throws(Failure) -> [Float]
  ) throws(Failure) {
    self.order = order ?? Array(0..<columns)
    if let problem = unsafe nibble_lapack_load() { throw Failure(.unsupported, unsafe String(cString: problem)) }
    var damping = damping
    while true {
      var values = try correlations()
      guard columns <= Int(Int32.max), columns > 0, values.count == columns * columns else {
        throw Failure(.internal, "\(values.count) correlations of \(columns) columns")
      }
      var sum = 0.0
      for column in 0..<columns { sum += Double(values[column * columns + column]) }
      let mean = Float(sum / Double(columns))
      guard mean > 0 else { throw Failure(.malformed, "has no input that is not zero") }
      for column in 0..<columns { values[column * columns + column] += damping * mean }
      let status = unsafe nibble_inverse_factor(Int32(columns), &values)
      if status == 0, values.allSatisfy(\.isFinite) {
        (self.columns, self.values, self.damping) = (columns, values, damping)
        return
      }
      try Interruption.check()
      // Nothing, ten times, is nothing still.
      damping = max(10 * damping, Self.leastDamping)
      guard damping <= 1 else {
        throw Failure(.malformed, "its correlations are not those of any inputs: they are not positive definite")
      }
    }
  }

  /// The same, of correlations that are in memory already.
  package init(_ correlations: [Float], columns: Int, damping: Float = 0.01) throws(Failure) {
    try self.init(columns: columns, damping: damping) { correlations }
  }

  /// What an error in each column costs that nothing behind it can make good: one over the square of the diagonal.
  package var weights: [Float] {
    (0..<columns).map { column in
      let diagonal = values[column * columns + column]
      return 1 / (diagonal * diagonal)
    }
  }
}
