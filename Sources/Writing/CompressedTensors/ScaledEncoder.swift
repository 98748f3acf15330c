package import Bytes
import Calibration
import Checkpoints
import PackedWeights
package import Quantization
package import Tensors

/// Stores the weight of a linear layer, [outputs, inputs], as compressed-tensors does: codes, and behind them the scale
/// of each block.
package struct ScaledEncoder: TensorEncoder {
  package let format: ScaledFormat
  /// The largest magnitudes by which NVFP4 chooses the scale of whole matrices; nil for other formats.
  private let magnitudes: LargestMagnitudes?
  /// How scales are found; nil for compressed-tensors' own.
  package let search: ScaleSearch?
  /// Whether the matrices are stored the other way round, which errors about a value take into account.
  private let isTurned: Bool

  package init(
    format: ScaledFormat, magnitudes: LargestMagnitudes? = nil, search: ScaleSearch? = nil, isTurned: Bool = false
  ) {
    self.format = format
    self.magnitudes = magnitudes
    self.search = search
    self.isTurned = isTurned
  }

  /// The end of the names of weights, before the part that tells codes, scales and shape.
  package static let suffix = ".weight"

  package var schemeName: String? { CompressedScheme.name(of: format) }

  /// Whole blocks of rows.
  package func pieceByteCount(for weight: TensorInfo) -> Int {
    let columns = max(1, weight.shape.last ?? 1)
    let (row, overflowed) = columns.multipliedReportingOverflow(by: max(1, weight.type.bitWidth / 8))
    let (band, tooLarge) = row.multipliedReportingOverflow(by: format.blockRows)
    guard !overflowed, !tooLarge else { return weight.byteCount }
    guard search?.feedback?.hasFactor(for: weight) == true else { return max(1, Piece.byteCount / band) * band }
    return max(1, Self.feedbackCount / columns) * row
  }

  /// Values of a piece in which errors are made good: the more rows at once the better.
  private static let feedbackCount = 1 << 20

  package func outputs(for weight: TensorInfo) throws(Failure) -> [StoredTensor] {
    guard let module = weight.name.dropping(suffix: Self.suffix), weight.shape.count == 2,
      let type = FloatType(weight.type)
    else {
      throw Failure(.unsupported, "is no weight that compressed-tensors can store", tensor: weight.name.string)
    }
    let (rows, columns) = (weight.shape[0], weight.shape[1])
    guard format.holds(columns: columns) else {
      throw Failure(
        .unsupported, "has rows of \(columns), which are no whole groups of \(format.blockColumns ?? columns)",
        tensor: weight.name.string)
    }
    func output(_ end: String, _ type: ElementType, _ shape: [Int]) throws(Failure) -> StoredTensor {
      StoredTensor(try TensorInfo(name: module + end, type: type, shape: shape))
    }
    let scales = format.scaleShape(rows: rows, columns: columns)
    let grid = [scales.rows, scales.columns]
    switch format.kind {
    case .fp8:
      return [try output(".weight", .f8e4m3, weight.shape), try output(".weight_scale", type.elementType, grid)]
    case .int4:
      return [
        try output(".weight_packed", .i32, [rows, columns / 8]), try output(".weight_scale", type.elementType, grid),
        try output(".weight_shape", .i64, [2]),
      ]
    case .mxfp4, .nearestMXFP4:
      return [try output(".weight_packed", .u8, [rows, columns / 2]), try output(".weight_scale", .u8, grid)]
    case .nvfp4:
      return [
        try output(".weight_packed", .u8, [rows, columns / 2]), try output(".weight_scale", .f8e4m3, grid),
        try output(".weight_global_scale", .f32, [1]),
      ]
    }
  }

  package func makeState(for weight: TensorInfo) -> (any Sendable)? {
    let scales = format.scaleShape(rows: weight.shape.dropLast().reduce(1, *), columns: weight.shape.last ?? 1)
    return BlockScales(
      byteCount: scales.rows * scales.columns * format.scaleByteCount(as: FloatType(weight.type) ?? .f32),
      search: found(for: weight), feedback: search?.feedback, weight: weight)
  }

  /// The search for one weight, or why what was measured for it is of no use.
  private func found(for weight: TensorInfo) -> Result<ScaledSearch?, Failure> {
    do throws(Failure) { return .success(try search?.scaledSearch(for: weight)) } catch { return .failure(error) }
  }

  package func encode(_ piece: Piece, from input: PieceInput, into buffer: PieceBuffer) throws(Failure) {
    let info = piece.work.info
    guard let state = piece.work.state as? BlockScales, let type = FloatType(info.type), let columns = info.shape.last
    else { throw Failure(.internal, "no room for scales") }
    let (start, count) = (piece.elements.lowerBound, piece.elements.count)
    let globalScale = try magnitudes?.globalScale(of: piece.work.step.tensor, type) ?? 1
    let values = try buffer.read(input)
    var codes = buffer.makeOutput(count / 8 * format.bits + count % 8 * format.bits / 8)
    let width = format.scaleByteCount(as: type)
    let perBand = format.scaleShape(rows: 1, columns: columns).columns * width
    let bands = start / columns / format.blockRows
    let here = format.scaleShape(rows: count / columns, columns: columns).rows
    let all = state.scales
    var scales = all.part(bands * perBand..<(bands + here) * perBand)
    let search = try state.search.get()
    let factor = try state.factor(blockSize: format.blockColumns ?? 0)
    do throws(NonFinite) {
      if let search {
        try format.quantize(
          values, as: type, columns: columns, globalScale: globalScale, search: search, codes: &codes, scales: &scales)
      } else {
        try format.quantize(
          values, as: type, columns: columns, globalScale: globalScale, codes: &codes, scales: &scales)
      }
      if let factor,
        let feedback = ScaledFeedback(
          format: format, as: type, globalScale: globalScale, factor: factor, search: search)
      {
        let rows = try feedback(values, as: type)
        codes.copy(from: rows.codes.span.rawBytes)
        scales.copy(from: rows.scales.span.rawBytes)
      }
    } catch {
      let position = storedPosition(of: start + error.index, in: info.shape)
      if factor != nil, values.isFinite(error.index, as: type) {
        throw Failure(
          .malformed, "element \(position) becomes \(error.value) as errors are made good in it",
          tensor: info.name.string)
      }
      throw .notFinite(error.value, at: position, piece, "quantized")
    }
  }

  private func storedPosition(of element: Int, in shape: [Int]) -> Int {
    guard isTurned, shape.count >= 2 else { return element }
    let (rows, columns) = (shape[shape.count - 2], shape[shape.count - 1])
    let (matrix, inside) = (element / (rows * columns), element % (rows * columns))
    return matrix * rows * columns + inside % columns * rows + inside / columns
  }

  package func finish(_ work: TensorWork, write: (RawSpan) throws(Failure) -> Void) throws(Failure) {
    guard let state = work.state as? BlockScales else { throw Failure(.internal, "no room for scales") }
    let scales = state.scales
    try write(scales.bytes)
    switch format.kind {
    case .fp8, .mxfp4, .nearestMXFP4: break
    case .int4:
      let shape = work.info.shape.map { Int64($0).littleEndian }
      try unsafe write(shape.span.bytes)
    case .nvfp4:
      let type = FloatType(work.info.type) ?? .f32
      let scale = try magnitudes?.globalScale(of: work.step.tensor, type) ?? 1
      let stored = [scale.bitPattern.littleEndian]
      try unsafe write(stored.span.bytes)
    }
  }
}

/// The scales of all blocks of a weight, as they are stored.
private final class BlockScales: Sendable {
  let scales: SharedBuffer
  /// The search, or why what was measured for the weight is of no use.
  let search: Result<ScaledSearch?, Failure>
  private let feedback: (any InputFactors)?
  private let weight: TensorInfo
  private let found = Once<Result<InverseFactor?, Failure>>()

  init(
    byteCount: Int, search: Result<ScaledSearch?, Failure>, feedback: (any InputFactors)?, weight: TensorInfo
  ) {
    scales = SharedBuffer(byteCount: byteCount)
    (self.search, self.feedback, self.weight) = (search, feedback, weight)
  }

  /// The factor of the weight's inputs, made when it is first asked for; nil where they were not measured.
  func factor(blockSize: Int) throws(Failure) -> InverseFactor? {
    guard let feedback else { return nil }
    let weight = weight
    return try found.value {
      do throws(Failure) { return .success(try feedback.factor(for: weight, blocks: [blockSize])) } catch {
        return .failure(error)
      }
    }.get()
  }
}

extension RawSpan {
  /// Whether the value at a position is finite.
  fileprivate func isFinite(_ index: Int, as type: FloatType) -> Bool {
    let bytes = extracting(index * type.byteCount..<(index + 1) * type.byteCount)
    var value = ScratchBuffer(byteCount: 4)
    var room = value.mutableBytes
    do throws(Overflow) { try convert(bytes, from: type, to: .f32, into: &room) } catch { return false }
    return value.floats[0].isFinite
  }
}
