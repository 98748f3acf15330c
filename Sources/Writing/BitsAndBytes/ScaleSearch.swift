import Bytes
import Quantization
import Tensors

/// How the scales of a model's blocks are searched.
public struct ScaleSearch: Sendable {
  /// What scales there may be.
  public enum Kind: String, Sendable, CaseIterable {
    /// Those of the least squared error, negative ones too.
    case mse
    /// The same among the positive ones.
    case positive
  }

  public var kind: Kind

  public init(_ kind: Kind) { self.kind = kind }

  func search(for weight: TensorInfo) -> FourBitSearch { FourBitSearch(isSigned: kind == .mse) }
}

/// The scales that were found for a whole weight, as they are stored.
package final class SearchedScales: Sendable {
  private let search: FourBitSearch
  /// One of each block, or of each group of blocks.
  private let scales: SharedBuffer
  /// One of each block in double quantization.
  private let codes: SharedBuffer?

  init(count: Int, isNested: Bool, _ search: FourBitSearch) {
    self.search = search
    scales = SharedBuffer(byteCount: 4 * (isNested ? DoubleQuantization.blockCount(count) : count))
    codes = isNested ? SharedBuffer(byteCount: count) : nil
  }

  /// - Parameters:
  ///   - column: of the first value, counted on from the weight's first.
  ///   - blocks: of the whole weight.
  func quantize(
    _ values: RawSpan, as type: FloatType, _ format: FourBitFormat, column: Int, blocks: Range<Int>,
    codes: inout MutableRawSpan
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
