import Bytes
package import Quantization

/// ggml's blocks column by column, what each column loses made good in those behind it, by how the inputs of the columns
/// go together. The scales of a block are found when its turn comes, by the encoder of its kind on the weights as they
/// have become by then; its codes are chosen anew, one column after the other.
package struct BlockFeedback: Sendable {
  package let type: BlockType
  package let factor: InverseFactor
  private let levels: BlockLevels
  /// What an error counts in each column when scales are found, relative to the mean; nil for a kind whose encoder does
  /// not ask.
  private let weights: [Float]?

  /// - Returns: nil for a kind whose values are not each a level by itself, and for rows that end inside a block.
  package init?(_ type: BlockType, factor: InverseFactor) {
    guard let levels = type.levels, factor.columns % type.valuesPerBlock == 0 else { return nil }
    self.type = type
    self.factor = factor
    self.levels = levels
    let weights = factor.weights
    let mean = weights.reduce(0.0) { $0 + Double($1) } / Double(weights.count)
    let isOfUse = type.importance != .unused && mean > 0 && mean.isFinite
    self.weights = isOfUse ? weights.map { Float(min(Double($0) / mean, Self.greatestWeight)) } : nil
  }

  /// What encoders take.
  private static let greatestWeight = 1e10

  /// - Parameter values: whole rows.
  /// - Returns: their blocks, row by row.
  /// - Throws: a value that is not finite, or too great for the scale of its block, with its index; what stands there
  ///   may have become so only by what others lost.
  package func callAsFunction(_ values: [Float]) throws(NonFinite) -> [UInt8] {
    let columns = factor.columns
    let rows = values.count / columns
    let (size, byteCount) = (type.valuesPerBlock, type.bytesPerBlock)
    // Columns side by side, as long as the kernels want them.
    let stride = (rows + 15) / 16 * 16
    let padding = [Float](repeating: 0, count: (stride - rows) * columns)
    var matrix = Self.transposed(values + padding, rows: stride)
    var codes = [UInt8](repeating: 0, count: stride * size)
    var errors = [Float](repeating: 0, count: stride * size)
    var result = [UInt8](repeating: 0, count: rows * (columns / size) * byteCount)
    for first in Swift.stride(from: 0, to: columns, by: size) {
      let own = Self.transposed(Array(matrix[first * stride..<(first + size) * stride]), rows: size)
      var blocks = try encode(own.prefix(rows * size), first)
      let (scales, minima) = type.factors(of: blocks, stride: stride)
      levels.feedback(
        &matrix, rows: stride, first: first, count: size, factor: factor.values, scales: scales, minima: minima,
        codes: &codes, errors: &errors)
      type.store(codes, stride: stride, into: &blocks)
      for row in 0..<rows {
        let place = (row * columns + first) / size * byteCount
        result.replaceSubrange(place..<place + byteCount, with: blocks[row * byteCount..<(row + 1) * byteCount])
      }
      factor.makeGood(errors, of: first..<first + size, in: &matrix, rows: stride)
    }
    return result
  }

  /// - Parameter values: one block of each row, which begins in column `first`.
  private func encode(_ values: ArraySlice<Float>, _ first: Int) throws(NonFinite) -> [UInt8] {
    let size = type.valuesPerBlock
    var blocks = [UInt8](repeating: 0, count: values.count / size * type.bytesPerBlock)
    var span = blocks.mutableSpan
    var room = span.mutableRawBytes
    do throws(NonFinite) {
      if let weights {
        try type.encode(values.span, rowLength: size, importance: weights[first..<first + size].span, into: &room)
      } else {
        try type.encode(values.span, rowLength: size, importance: nil, into: &room)
      }
      return blocks
    } catch {
      let (row, column) = (error.index / size, first + error.index % size)
      throw NonFinite(index: row * factor.columns + column, value: error.value)
    }
  }

  private static func transposed(_ matrix: [Float], rows: Int) -> [Float] {
    var result = [Float](repeating: 0, count: matrix.count)
    var room = result.mutableSpan
    var bytes = room.mutableRawBytes
    transpose(
      matrix.span.rawBytes, rows: rows, columns: matrix.count / max(1, rows), elementBytes: 4, into: &bytes)
    return result
  }
}
