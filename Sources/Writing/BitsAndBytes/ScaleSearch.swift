package import Bytes
package import Calibration
import Checkpoints
package import Quantization
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

  /// nil for the largest magnitudes, which goes with feedback.
  package var kind: Kind?
  /// By which the squared errors of a weight's columns count; nil for all alike.
  package var importance: (any ColumnMeans)?
  /// By which the error in one column is made good in those behind it; nil for not at all.
  package var feedback: (any InputFactors)?

  package init(_ kind: Kind?, importance: (any ColumnMeans)? = nil, feedback: (any InputFactors)? = nil) {
    self.kind = kind
    self.importance = importance
    self.feedback = feedback
  }

  /// The search for the scales of one weight's blocks, or why what was measured for it is of no use.
  package func search(for weight: TensorInfo, blockSize: Int) -> Result<FourBitSearch, Failure> {
    var search = FourBitSearch(kind.map { $0 == .mse ? .signed : .positive } ?? .maximum)
    do throws(Failure) {
      if let means = try importance?.means(for: weight) { search.weights = ColumnWeights(means, blockSize: blockSize) }
      return .success(search)
    } catch { return .failure(error) }
  }
}

extension ScaleSearch {
  /// The same of compressed-tensors' scales; nil for those without a search.
  func scaledSearch(for weight: TensorInfo) throws(Failure) -> ScaledSearch? {
    guard let kind else { return nil }
    let weights = try importance?.means(for: weight).flatMap { ColumnWeights($0, blockSize: 0) }
    return ScaledSearch(allowsNegative: kind == .mse, weights: weights)
  }
}

/// What the columns of weights are multiplied with.
package protocol ColumnMeans: Sendable {
  /// The mean square of each column's inputs; nil where it was not measured.
  ///
  /// - Throws: `malformed` when there are more or fewer than the weight has columns.
  func means(for weight: TensorInfo) throws(Failure) -> [Float]?
}

/// How the columns of weights' inputs go together.
package protocol InputFactors: Sendable {
  /// The factor of a weight's inputs; nil where they were not measured.
  ///
  /// - Parameter blocks: columns that share a scale, which stay together in whatever order they are taken; with scales of
  ///   groups within blocks, the sizes of both. Nothing for the stored order.
  /// - Throws: `malformed` for correlations of another number of columns, and for such as no inputs have.
  func factor(for weight: TensorInfo, blocks: [Int]) throws(Failure) -> InverseFactor?

  /// Whether they were measured.
  func hasFactor(for weight: TensorInfo) -> Bool
}

/// The scales that were found for a whole weight, as they are stored.
package final class SearchedScales: Sendable {
  /// The search, or why what was measured for the weight is of no use.
  let search: Result<FourBitSearch, Failure>
  private let feedback: (any InputFactors)?
  private let weight: TensorInfo
  private let found = Once<Result<InverseFactor?, Failure>>()
  /// One of each block, or of each group of blocks.
  private let scales: SharedBuffer
  /// One of each block in double quantization.
  private let codes: SharedBuffer?

  init(
    count: Int, isNested: Bool, _ search: Result<FourBitSearch, Failure>, feedback: (any InputFactors)?,
    weight: TensorInfo
  ) {
    self.search = search
    self.feedback = feedback
    self.weight = weight
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

  /// The factor of the weight's inputs, made when it is first asked for.
  private func factor(_ blockSize: Int) throws(Failure) -> InverseFactor? {
    guard let feedback else { return nil }
    let weight = weight
    return try found.value {
      do throws(Failure) { return .success(try feedback.factor(for: weight, blocks: [blockSize])) } catch {
        return .failure(error)
      }
    }.get()
  }

  /// Quantizes whole rows once more, what each column loses made good in those behind it.
  ///
  /// - Parameters:
  ///   - values: of `type`, quantized already: by that the scales of each group of blocks have a bound.
  ///   - blocks: of the whole weight.
  func makeGood(
    _ values: RawSpan, as type: FloatType, _ format: FourBitFormat, _ search: FourBitSearch, blocks: Range<Int>,
    codes: inout MutableRawSpan
  ) throws(Failure) {
    guard let factor = try factor(format.blockSize), let stored = self.codes else { return }
    let count = values.byteCount / type.byteCount
    var wide = ScratchBuffer(byteCount: 4 * count)
    var room = wide.mutableBytes
    do throws(Overflow) { try convert(values, from: type, to: .f32, into: &room) } catch {
      throw Failure(.internal, "\(error)", tensor: weight.name.string)
    }
    let scales = scales
    let first = blocks.lowerBound / DoubleQuantization.blockSize
    var nested = scales.floats(first..<first + DoubleQuantization.blockCount(blocks.count))
    // Weights that others' errors were made good in may be a little larger than they were.
    let limit = FourBitFormat.greatestScale(of: type)
    for index in nested.indices { nested[index] = min(nested[index] * Self.headroom, limit) }
    let feedback = Feedback(format: format, factor: factor, search: search)
    let rows = feedback(wide.floats.array, groups: nested.span.array)
    codes.copy(from: rows.codes.span.rawBytes)
    var places = stored.part(blocks)
    places.copy(from: rows.scaleCodes.span.rawBytes)
  }

  private static let headroom: Float = 1.05

  var statistics: FourBitEncoder.Statistics {
    let memory = scales
    var result = FourBitEncoder.Statistics(scales: memory.floats.array)
    if let codes {
      let bytes = codes.bytes
      for index in bytes.byteOffsets { result.codes.append(bytes.load(at: index, as: UInt8.self)) }
    }
    return result
  }
}
