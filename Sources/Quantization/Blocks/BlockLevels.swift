import Kernels

/// What the codes of a kind of block stand for.
package struct BlockLevels: Sendable {
  /// Whole numbers; the positions of `table` where there is one.
  package let range: ClosedRange<Int>
  /// 16 rising numbers.
  package let table: [Float]?
  /// Values that share a scale and a minimum.
  package let groupSize: Int

  init(_ range: ClosedRange<Int>, groupSize: Int) {
    self.range = range
    table = nil
    self.groupSize = groupSize
  }

  init(_ table: [Float], groupSize: Int) {
    range = 0...table.count - 1
    self.table = table
    self.groupSize = groupSize
  }
}

extension BlockLevels {
  /// Quantizes columns one after the other, what each loses made good in those behind it.
  ///
  /// - Parameters:
  ///   - matrix: column by column, each of `rows` values, a multiple of 16; from `first` on `count` are quantized, which
  ///     begin with a group.
  ///   - factor: the upper factor of the inverse of the inputs' correlations, row by row, as many as `matrix` has columns.
  ///   - scales: one for each row, group after group.
  ///   - minima: as many.
  ///   - codes: of the columns that are quantized, one byte each, counted from the lowest level.
  ///   - errors: theirs, over the factor's diagonal.
  package func feedback(
    _ matrix: inout [Float], rows: Int, first: Int, count: Int, factor: [Float], scales: [Float], minima: [Float],
    codes: inout [UInt8], errors: inout [Float]
  ) {
    let columns = matrix.count / rows
    precondition(rows % 16 == 0 && factor.count == columns * columns && first + count <= columns, "sizes differ")
    let groups = (count + groupSize - 1) / groupSize
    precondition(scales.count >= groups * rows && minima.count >= groups * rows, "scales too short")
    precondition(codes.count >= rows * count && errors.count >= rows * count, "no room")
    precondition(table?.count ?? 16 == 16, "16 levels in a table")
    unsafe matrix.withUnsafeMutableBufferPointer { matrix in
      unsafe factor.withUnsafeBufferPointer { factor in
        unsafe (table ?? []).withUnsafeBufferPointer { table in
          guard let matrix = matrix.baseAddress, let factor = factor.baseAddress else { return }
          var levels = unsafe nibble_levels(
            lowest: Int32(range.lowerBound), greatest: Int32(range.upperBound),
            table: table.isEmpty ? nil : table.baseAddress, group_size: groupSize)
          unsafe nibble_feedback_levels(
            matrix + first * rows, rows, count, factor + first * columns + first, columns, &levels, scales, minima,
            &codes, &errors)
        }
      }
    }
  }
}
