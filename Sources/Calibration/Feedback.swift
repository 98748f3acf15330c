package import Quantization

/// Quantization column by column, what each column loses made good in those behind it, by how the inputs of the columns
/// go together. The scale of a block is searched when its turn comes, on the weights as they have become by then.
package struct Feedback: Sendable {
  package let format: FourBitFormat
  package let factor: InverseFactor
  package private(set) var search: FourBitSearch

  /// - Parameter weights: what an error counts in each column when a scale is searched.
  package init(format: FourBitFormat, factor: InverseFactor, search: FourBitSearch) {
    self.format = format
    self.factor = factor
    self.search = search
    self.search.weights = ColumnWeights(factor.weights, blockSize: format.blockSize)
  }

  /// Whole rows in 4 bits.
  package struct Rows {
    /// Two to a byte, row by row.
    package var codes: [UInt8]
    /// One for each block, positions in `DoubleQuantization.map`.
    package var scaleCodes: [UInt8]
  }

  /// - Parameters:
  ///   - values: `[rows, columns]`, columns a multiple of the block size.
  ///   - groups: for each 256 blocks from the first value on, what their scales are relative to.
  package func callAsFunction(_ values: [Float], groups: [Float]) -> Rows {
    let columns = factor.columns
    let rows = values.count / columns
    let size = format.blockSize
    // Columns side by side, as long as the kernels want them.
    let stride = (rows + 15) / 16 * 16
    var matrix = [Float](repeating: 0, count: stride * columns)
    let order = factor.order
    for row in 0..<rows {
      for place in 0..<columns { matrix[place * stride + row] = values[row * columns + order[place]] }
    }
    var result = Rows(
      codes: [UInt8](repeating: 0, count: rows * columns / 2),
      scaleCodes: [UInt8](repeating: 0, count: rows * columns / size))
    let map = DoubleQuantization.map
    var part = [Float](repeating: 0, count: rows * size)
    var scales = [Float](repeating: 0, count: stride)
    var codes = [UInt8](repeating: 0, count: stride * size)
    var errors = [Float](repeating: 0, count: stride * size)
    for first in Swift.stride(from: 0, to: columns, by: size) {
      for row in 0..<rows {
        for place in 0..<size { part[row * size + place] = matrix[(first + place) * stride + row] }
      }
      // Its columns may be in another order, and so may the blocks; those of one block are together.
      let block = order[first] / size
      let places = (0..<rows).map { $0 * columns / size + block }
      let given = places.map { groups[$0 / DoubleQuantization.blockSize] }
      let stored = format.storedScales(part, search: search, column: first, given: given)
      for row in 0..<rows {
        result.scaleCodes[places[row]] = stored[row]
        scales[row] = map[Int(stored[row])] * given[row]
      }
      format.feedback(
        &matrix, rows: stride, first: first, count: size, factor: factor.values, scales: scales, codes: &codes,
        errors: &errors)
      for place in 0..<size {
        let column = order[first + place]
        let shift: UInt8 = column % 2 == 0 ? 4 : 0
        for row in 0..<rows {
          result.codes[(row * columns + column) / 2] |= codes[place * stride + row] << shift
        }
      }
      factor.makeGood(errors, of: first..<first + size, in: &matrix, rows: stride)
    }
    return result
  }
}
