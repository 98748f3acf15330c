package import Bytes
import Quantization
package import Tensors

/// How the scales of a model's blocks are searched.
public struct ScaleSearch: Sendable {
  /// What scales there may be.
  public enum Kind: String, Sendable, CaseIterable {
    /// Those of the least squared error, negative ones too.
    case mse
    /// The same among the positive ones.
    case positive
  }

  package var kind: Kind
  /// By which the squared errors of a weight's columns count; nil for all alike.
  package var importance: (any ColumnMeans)?

  package init(_ kind: Kind, importance: (any ColumnMeans)? = nil) {
    self.kind = kind
    self.importance = importance
  }

  func search(for weight: TensorInfo, blockSize: Int) -> Result<FourBitSearch, Failure> {
    var search = FourBitSearch(isSigned: kind == .mse)
    do throws(Failure) {
      if let means = try importance?.means(for: weight) { search.weights = ColumnWeights(means, blockSize: blockSize) }
      return .success(search)
    } catch { return .failure(error) }
  }
}

/// What the columns of weights are multiplied with.
package protocol ColumnMeans: Sendable {
  /// The mean square of each column's inputs; nil where it was not measured.
  ///
  /// - Throws: `malformed` when there are more or fewer than the weight has columns.
  func means(for weight: TensorInfo) throws(Failure) -> [Float]?
}

/// The scales that were found for a whole weight, as they are stored.
package final class SearchedScales: Sendable {
  /// The search, or why what was measured for the weight is of no use.
  let search: Result<FourBitSearch, Failure>
  /// One of each block, or of each group of blocks.
  private let scales: SharedBuffer
  /// One of each block in double quantization.
  private let codes: SharedBuffer?

  init(count: Int, isNested: Bool, _ search: Result<FourBitSearch, Failure>) {
    self.search = search
    scales = SharedBuffer(byteCount: 4 * (isNested ? DoubleQuantization.blockCount(count) : count))
    codes = isNested ? SharedBuffer(byteCount: count) : nil
  }

  /// - Parameters:
  ///   - column: of the first value, counted on from the weight's first.
  ///   - blocks: of the whole weight.
  func quantize(
    _ values: RawSpan, as type: FloatType, _ format: FourBitFormat, _ search: FourBitSearch, column: Int,
    blocks: Range<Int>, codes: inout MutableRawSpan
  ) throws(NonFinite) {
    let scales = scales
    guard let scaleCodes = self.codes else {
      var some = scales.floats(blocks)
      return try format.quantize(values, as: type, search: search, column: column, codes: &codes, scales: &some)
    }
    let size = DoubleQuantization.blockSize
    let first = blocks.lowerBound / size
    var nested = scales.floats(first..<first + DoubleQuantization.blockCount(blocks.count))
    var stored = scaleCodes.part(blocks)
    try format.quantize(
      values, as: type, search: search, column: column, codes: &codes, nestedScales: &nested, scaleCodes: &stored)
  }

  var statistics: FourBitEncoder.Statistics {
    var result = FourBitEncoder.Statistics(scales: [])
    let memory = scales
    let floats = memory.floats
    for index in floats.indices { result.scales.append(floats[index]) }
    if let codes {
      let bytes = codes.bytes
      for index in bytes.byteOffsets { result.codes.append(bytes.load(at: index, as: UInt8.self)) }
    }
    return result
  }
}
