import Bytes
package import Quantization

/// The formats of compressed-tensors column by column, what each column loses made good in those behind it, by how the
/// inputs of the columns go together. The scale of a group is found when its turn comes, on the weights as they have
/// become by then.
package struct ScaledFeedback: Sendable {
  package let format: ScaledFormat
  /// Of the weight, and of scales where they have its type.
  package let type: FloatType
  package let globalScale: Float
  package let factor: InverseFactor
  private let search: ScaledSearch?
  private let size: Int

  /// - Parameter search: how scales are found; nil for compressed-tensors' own. What an error counts in each column is what
  ///   nothing behind it can make good.
  /// - Returns: nil for a format without groups, and for rows that end inside one.
  package init?(
    format: ScaledFormat, as type: FloatType, globalScale: Float, factor: InverseFactor, search: ScaledSearch?
  ) {
    guard format.isSearchable, let size = format.blockColumns, factor.columns % size == 0 else { return nil }
    (self.format, self.type, self.globalScale, self.factor, self.size) = (format, type, globalScale, factor, size)
    var search = search
    if search != nil { search?.weights = ColumnWeights(factor.weights, blockSize: 0) }
    self.search = search
  }

  /// Whole rows as they are stored.
  package struct Rows {
    /// Two to a byte, the first in its low half, row by row.
    package var codes: [UInt8]
    /// One for each group, row by row.
    package var scales: [UInt8]
  }

  /// - Parameter values: `[rows, columns]`.
  /// - Throws: a value that is not finite; what stands there may have become so only by what others lost.
  package func callAsFunction(_ values: [Float]) throws(NonFinite) -> Rows {
    let columns = factor.columns
    let rows = values.count / columns
    // Columns side by side, as long as the kernels want them.
    let stride = (rows + 15) / 16 * 16
    var matrix = [Float](repeating: 0, count: stride * columns)
    let order = factor.order
    for row in 0..<rows {
      for place in 0..<columns { matrix[place * stride + row] = values[row * columns + order[place]] }
    }
    let width = format.scaleByteCount(as: type)
    var result = Rows(
      codes: [UInt8](repeating: 0, count: rows * columns / 2),
      scales: [UInt8](repeating: 0, count: rows * columns / size * width))
    var codes = [UInt8](repeating: 0, count: stride * size)
    var errors = [Float](repeating: 0, count: stride * size)
    var divisors = [Float](repeating: 1, count: stride)
    for first in Swift.stride(from: 0, to: columns, by: size) {
      let scales = try scales(matrix, rows, stride, first)
      divisors.replaceSubrange(
        0..<rows, with: format.divisors(scales, as: type, globalScale: globalScale))
      format.feedback(
        &matrix, rows: stride, first: first, count: size, factor: factor.values, divisors: divisors, codes: &codes,
        errors: &errors)
      for row in 0..<rows {
        let group = row * columns / size + order[first] / size
        for byte in 0..<width { result.scales[group * width + byte] = scales[row * width + byte] }
      }
      for place in 0..<size {
        let column = order[first + place]
        let shift: UInt8 = column % 2 == 0 ? 0 : 4
        for row in 0..<rows {
          result.codes[(row * columns + column) / 2] |= codes[place * stride + row] << shift
        }
      }
      factor.makeGood(errors, of: first..<first + size, in: &matrix, rows: stride)
    }
    return result
  }

  /// The same for values of another type.
  package func callAsFunction(_ values: RawSpan, as type: FloatType) throws(NonFinite) -> Rows {
    var wide = [Float](repeating: 0, count: values.byteCount / type.byteCount)
    var span = wide.mutableSpan
    var room = span.mutableRawBytes
    do throws(Overflow) { try convert(values, from: type, to: .f32, into: &room) } catch {
      throw NonFinite(index: error.index, value: Float(error.value))
    }
    return try self(wide)
  }

  /// The scales of the groups that begin in column `first`, found on their values as the weight's type has them.
  private func scales(
    _ matrix: [Float], _ rows: Int, _ stride: Int, _ first: Int
  ) throws(NonFinite) -> [UInt8] {
    func located(_ index: Int, _ value: Float) -> NonFinite {
      NonFinite(index: index / size * factor.columns + factor.order[first + index % size], value: value)
    }
    let limit = FourBitFormat.greatestScale(of: type)
    var group = [Float](repeating: 0, count: rows * size)
    for column in 0..<size {
      for row in 0..<rows {
        group[row * size + column] = min(max(matrix[(first + column) * stride + row], -limit), limit)
      }
    }
    var narrow = [UInt8](repeating: 0, count: rows * size * type.byteCount)
    var codes = [UInt8](repeating: 0, count: rows * size / 2)
    var scales = [UInt8](repeating: 0, count: rows * format.scaleByteCount(as: type))
    var narrowSpan = narrow.mutableSpan
    var narrowBytes = narrowSpan.mutableRawBytes
    var codeSpan = codes.mutableSpan
    var codeBytes = codeSpan.mutableRawBytes
    var scaleSpan = scales.mutableSpan
    var scaleBytes = scaleSpan.mutableRawBytes
    do throws(Overflow) {
      try convert(group.span.rawBytes, from: .f32, to: type, into: &narrowBytes)
    } catch { throw located(error.index, Float(error.value)) }
    do throws(NonFinite) {
      if var search {
        search.weights = search.weights?.part(first..<first + size)
        try format.quantize(
          narrowBytes.bytes, as: type, columns: size, globalScale: globalScale, search: search, codes: &codeBytes,
          scales: &scaleBytes)
      } else {
        try format.quantize(
          narrowBytes.bytes, as: type, columns: size, globalScale: globalScale, codes: &codeBytes, scales: &scaleBytes)
      }
    } catch { throw located(error.index, error.value) }
    return scales
  }
}
