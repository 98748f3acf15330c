import COpenBLAS

extension InverseFactor {
  /// Takes what some columns lost from all that follow: the rows of the factor, transposed, times the errors.
  ///
  /// - Parameters:
  ///   - errors: of the columns `done`, over the diagonal, column by column.
  ///   - matrix: column by column, each of `rows` values.
  func makeGood(_ errors: [Float], of done: Range<Int>, in matrix: inout [Float], rows: Int) {
    let rest = columns - done.upperBound
    precondition(errors.count >= rows * done.count && matrix.count == rows * columns, "sizes differ")
    guard rest > 0 else { return }
    unsafe matrix.withUnsafeMutableBufferPointer { matrix in
      unsafe values.withUnsafeBufferPointer { factor in
        guard let matrix = matrix.baseAddress, let factor = factor.baseAddress else { return }
        unsafe nibble_sgemm(
          1, 0, Int32(clamping: rest), Int32(clamping: rows), Int32(clamping: done.count), -1,
          factor + done.lowerBound * columns + done.upperBound, Int32(clamping: columns), errors,
          Int32(clamping: rows), 1, matrix + done.upperBound * rows, Int32(clamping: rows))
      }
    }
  }
}
