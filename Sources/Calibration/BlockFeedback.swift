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

  /// Sizes of what keeps together in whatever order the columns are taken: blocks, and the groups that share a scale.
  package static func blocks(of type: BlockType) -> [Int] {
    [type.valuesPerBlock] + (type.levels.map { [min($0.groupSize, type.valuesPerBlock)] } ?? [])
  }

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
    let order = factor.order
    var matrix = [Float](repeating: 0, count: stride * columns)
    for row in 0..<rows {
      for place in 0..<columns { matrix[place * stride + row] = values[row * columns + order[place]] }
    }
    var codes = [UInt8](repeating: 0, count: stride * size)
    var stored = codes
    var errors = [Float](repeating: 0, count: stride * size)
    var own = [Float](repeating: 0, count: rows * size)
    var result = [UInt8](repeating: 0, count: rows * (columns / size) * byteCount)
    for first in Swift.stride(from: 0, to: columns, by: size) {
      // Where each of the columns lies in its block.
      let places = order[first..<first + size].map { $0 % size }
      for (place, column) in places.enumerated() {
        for row in 0..<rows { own[row * size + column] = matrix[(first + place) * stride + row] }
      }
      var blocks = try encode(own, first, places)
      let factors = type.factors(of: blocks, stride: stride)
      levels.feedback(
        &matrix, rows: stride, first: first, count: size, factor: factor.values,
        scales: grouped(factors.scales, places, stride), minima: grouped(factors.minima, places, stride),
        codes: &codes, errors: &errors)
      for (place, column) in places.enumerated() {
        stored.replaceSubrange(
          column * stride..<(column + 1) * stride, with: codes[place * stride..<(place + 1) * stride])
      }
      type.store(stored, stride: stride, into: &blocks)
      for row in 0..<rows {
        let place = (row * columns / size + order[first] / size) * byteCount
        result.replaceSubrange(place..<place + byteCount, with: blocks[row * byteCount..<(row + 1) * byteCount])
      }
      factor.makeGood(errors, of: first..<first + size, in: &matrix, rows: stride)
    }
    return result
  }

  /// What each group of a block has, in the order in which the groups are taken.
  private func grouped(_ values: [Float], _ places: [Int], _ stride: Int) -> [Float] {
    var result: [Float] = []
    result.reserveCapacity(values.count)
    for place in Swift.stride(from: 0, to: places.count, by: levels.groupSize) {
      let group = places[place] / levels.groupSize
      result += values[group * stride..<(group + 1) * stride]
    }
    return result
  }

  /// - Parameters:
  ///   - values: one block of each row, its columns as they are stored.
  ///   - first: the place of the first of them that is taken, and of all where they lie in the block.
  private func encode(_ values: [Float], _ first: Int, _ places: [Int]) throws(NonFinite) -> [UInt8] {
    let size = type.valuesPerBlock
    var blocks = [UInt8](repeating: 0, count: values.count / size * type.bytesPerBlock)
    var span = blocks.mutableSpan
    var room = span.mutableRawBytes
    do throws(NonFinite) {
      if let weights {
        var own = [Float](repeating: 0, count: size)
        for (place, column) in places.enumerated() { own[column] = weights[first + place] }
        try type.encode(values.span, rowLength: size, importance: own.span, into: &room)
      } else {
        try type.encode(values.span, rowLength: size, importance: nil, into: &room)
      }
      return blocks
    } catch {
      let (row, column) = (error.index / size, factor.order[first] / size * size + error.index % size)
      throw NonFinite(index: row * factor.columns + column, value: error.value)
    }
  }
}
