import Kernels

/// The overload for unsafe buffers; those read and those written must not overlap.
package func transpose(
  _ matrix: UnsafeRawBufferPointer, rows: Int, columns: Int, elementBytes: Int,
  into output: UnsafeMutableRawBufferPointer
) {
  precondition([2, 4, 8].contains(elementBytes), "elements of 2, 4 or 8 bytes")
  precondition(rows >= 0 && columns >= 0)
  let byteCount = rows * columns * elementBytes
  precondition(matrix.count >= byteCount && output.count >= byteCount, "matrix or output too short")
  guard byteCount > 0, let from = matrix.baseAddress, let to = output.baseAddress else { return }
  unsafe nibble_transpose(from, rows, columns, elementBytes, to)
}
