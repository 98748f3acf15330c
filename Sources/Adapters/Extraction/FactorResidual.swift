package import Bytes
import COpenBLAS
import Quantization

/// How much of a matrix a product of two factors leaves.
package enum FactorResidual {
  private static let blockSize = 64

  /// ‖M - left · right‖² and ‖M‖² (Frobenius): the product in 32 bits, as whoever merges computes it, the sums
  /// in 64.
  ///
  /// - Parameter jobs: workers; the result does not depend on their number.
  package static func squares(
    _ matrix: FloatMatrix, left: FloatMatrix, right: FloatMatrix, jobs: Int
  ) throws(Failure) -> (residual: Double, whole: Double) {
    precondition(left.rows == matrix.rows && right.columns == matrix.columns && left.columns == right.rows)
    let blocks = Blocks(matrix.rows, of: blockSize, jobs: jobs)
    let found = BlockResults<ValueDifference>(blocks.number)
    try blocks.perform { (block, range) throws(Failure) in
      let product = try FloatMatrix(rows: range.count, columns: matrix.columns)
      found.set(block, difference(matrix, left, right, range, product))
    }
    var total = ValueDifference()
    for difference in found.all { total.merge(difference) }
    return (total.sumOfSquares, total.referenceSumOfSquares)
  }

  private static func difference(
    _ matrix: FloatMatrix, _ left: FloatMatrix, _ right: FloatMatrix, _ rows: Range<Int>, _ product: FloatMatrix
  ) -> ValueDifference {
    var difference = ValueDifference()
    let width = matrix.columns
    unsafe left.withValues { a in
      unsafe right.withValues { b in
        unsafe product.withValues { c in
          unsafe nibble_sgemm(
            0, 0, Int32(rows.count), Int32(width), Int32(left.columns), 1, a + rows.lowerBound * left.columns,
            Int32(left.columns), b, Int32(width), 0, c, Int32(width))
        }
      }
    }
    let own = matrix.bytes.extracting(4 * rows.lowerBound * width..<4 * rows.upperBound * width)
    difference.add(own, as: .f32, product.bytes, as: .f32)
    return difference
  }
}
