package import Bytes
import Checkpoints
import PackedWeights
import Quantization
package import Tensors

/// Stores a weight in 4 bits as bitsandbytes does: codes, and the statistics of their blocks behind them.
package struct FourBitEncoder: TensorEncoder {
  package let scheme: FourBitScheme
  /// How the scale of each block is found; nil for its largest magnitude, as bitsandbytes does.
  package let search: ScaleSearch?

  package init(scheme: FourBitScheme, search: ScaleSearch? = nil) {
    self.scheme = scheme
    self.search = search
  }

  package var schemeName: String? { scheme.format.code.rawValue.uppercased() }

  package func outputs(for weight: TensorInfo) throws(Failure) -> [StoredTensor] {
    try scheme.outputs(for: weight, type: type(of: weight)).map(StoredTensor.init)
  }

  package func makeState(for weight: TensorInfo) -> (any Sendable)? {
    let blocks = scheme.format.blockCount(weight.elementCount)
    let feedback = canFeedBack(weight) && search?.feedback?.hasFactor(for: weight) == true ? search?.feedback : nil
    // Without a search, what no error is made good in is quantized as ever.
    guard let search, search.kind != nil || feedback != nil else { return BlockMaxima(count: blocks) }
    return SearchedScales(
      count: blocks, isNested: scheme.usesDoubleQuantization,
      search.search(for: weight, blockSize: scheme.format.blockSize), feedback: feedback, weight: weight)
  }

  /// Scales that are stored together are searched together.
  package func pieceByteCount(for weight: TensorInfo) -> Int {
    guard search != nil else { return Piece.byteCount }
    var unit = DoubleQuantization.blockSize * scheme.format.blockSize
    if search?.feedback != nil, canFeedBack(weight), let columns = weight.shape.last {
      // Whole rows, the more at once the better.
      unit *= columns / Self.commonDivisor(unit, columns)
      unit *= max(1, Self.feedbackCount / unit)
    }
    unit *= type(of: weight).byteCount
    return max(unit, Piece.byteCount / unit * unit)
  }

  private static let feedbackCount = 1 << 20

  private static func commonDivisor(_ a: Int, _ b: Int) -> Int { b == 0 ? a : commonDivisor(b, a % b) }

  /// Whether errors can be made good in a weight: a matrix whose blocks end with its rows.
  package func canFeedBack(_ weight: TensorInfo) -> Bool {
    guard weight.shape.count == 2, let columns = weight.shape.last, columns > 0 else { return false }
    return scheme.usesDoubleQuantization && columns % scheme.format.blockSize == 0
  }

  private func type(of weight: TensorInfo) -> FloatType { FloatType(weight.type) ?? .f32 }

  package func encode(_ piece: Piece, from input: PieceInput, into buffer: PieceBuffer) throws(Failure) {
    let format = scheme.format
    let values = try buffer.read(input)
    var codes = buffer.makeOutput(format.packedByteCount(piece.elements.count))
    let first = piece.elements.lowerBound / format.blockSize
    let blocks = first..<first + format.blockCount(piece.elements.count)
    let type = type(of: piece.work.info)
    let searched = piece.work.state as? SearchedScales
    let search = try searched?.search.get()
    do throws(NonFinite) {
      if let searched, let search {
        try searched.quantize(
          values, as: type, format, search, column: piece.elements.lowerBound, blocks: blocks, codes: &codes)
      } else if let maxima = piece.work.state as? BlockMaxima {
        let memory = maxima.values
        var absmax = memory.floats(blocks)
        try format.quantize(values, as: type, codes: &codes, absmax: &absmax)
      }
    } catch {
      throw .notFinite(error.value, at: piece.elements.lowerBound + error.index, piece, "quantized")
    }
    if let searched, let search {
      try searched.makeGood(values, as: type, format, search, blocks: blocks, codes: &codes)
    }
  }

  package func finish(_ work: TensorWork, write: (RawSpan) throws(Failure) -> Void) throws(Failure) {
    let type = type(of: work.info)
    let outputs = try scheme.outputs(for: work.info, type: type)
    let statistics = try statistics(of: work)
    for (part, output) in zip(scheme.parts, outputs) {
      switch part {
      case .codes: break
      case .absmax, .nestedAbsmax: try write(statistics.scales.span.rawBytes)
      case .absmaxCodes: try write(statistics.codes.span.rawBytes)
      case .quantMap: try write(scheme.format.code.levels.span.rawBytes)
      case .nestedQuantMap:
        let map = DoubleQuantization.map
        try write(map.span.rawBytes)
      case .quantState:
        let text = scheme.state(of: work.info, type: type, offset: statistics.offset).text
        let padding = output.byteCount - text.utf8.count
        guard padding >= 0 else {
          throw Failure(.internal, "the quant_state outgrew its place", tensor: output.name.string)
        }
        let padded = Array(text.utf8) + Array(repeating: UInt8(ascii: " "), count: padding)
        try write(padded.span.rawBytes)
      }
    }
  }
}

extension FourBitEncoder {
  /// What is stored of a weight's scales, all pieces done: as they are, or in double quantization.
  package struct Statistics {
    package var scales: [Float]
    package var codes: [UInt8] = []
    package var offset: Float = 0
  }

  package func statistics(of work: TensorWork) throws(Failure) -> Statistics {
    if let searched = work.state as? SearchedScales { return searched.statistics }
    guard let maxima = work.state as? BlockMaxima else { throw Failure(.internal, "no room for block maxima") }
    let absmax = maxima.values
    guard scheme.usesDoubleQuantization else { return Statistics(scales: absmax.floats.array) }
    let nested = NestedAbsmax(absmax.floats)
    return Statistics(scales: nested.absmax, codes: nested.codes, offset: nested.offset)
  }
}

/// The largest magnitude of each block of a whole weight.
package final class BlockMaxima: Sendable {
  package let values: SharedBuffer

  package init(count: Int) { values = SharedBuffer(byteCount: 4 * count) }
}
