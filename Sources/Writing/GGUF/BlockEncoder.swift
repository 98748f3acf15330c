package import Bytes
import Calibration
import Checkpoints
package import GGUF
import PackedWeights
import Quantization
package import Tensors

/// Stores a tensor in a type of ggml: in blocks of a few bits, or in another dtype.
package struct BlockEncoder: TensorEncoder {
  package let type: GGMLType
  /// Whether its shape is written without dimensions of 1 in front, as ggml does, which has always four of them.
  package var isFlat = false
  /// The importance of each column by an importance matrix: one list, or one for each expert.
  package var importance: [Float]?
  /// By which the error in one column is made good in those behind it; nil for not at all.
  package var feedback: (any InputFactors)?

  package var schemeName: String? { type.isQuantized ? type.name.uppercased() : nil }

  /// Values of one piece, unless one row has more: their f32 form fits a core's private cache.
  private static let elementsPerPiece = 1 << 17
  /// The same where errors are made good, which is the faster the more rows there are.
  private static let feedbackElements = 1 << 20

  package func outputs(for weight: TensorInfo) throws(Failure) -> [StoredTensor] {
    guard weight.type == type.elementType || weight.type.isFloat && type.canBeEncoded else {
      throw Failure(
        .unsupported, "is \(weight.type.name), which cannot be written as \(type.name.uppercased())",
        tensor: weight.name.string)
    }
    return [try StoredTensor(Self.tensor(weight, type, isFlat: isFlat))]
  }

  package static func tensor(_ weight: TensorInfo, _ type: GGMLType, isFlat: Bool) throws(Failure) -> GGUFTensor {
    let leading = isFlat ? weight.shape.dropLast().prefix { $0 == 1 }.count : 0
    return try GGUFTensor(name: weight.name, type: type, shape: Array(weight.shape.dropFirst(leading)))
  }

  /// Whole rows, where the type has blocks.
  package func pieceByteCount(for weight: TensorInfo) -> Int {
    let count = canFeedBack(weight) ? Self.feedbackElements : Self.elementsPerPiece
    return Self.pieceByteCount(for: weight, type, elements: count)
  }

  package static func pieceByteCount(
    for weight: TensorInfo, _ type: GGMLType, elements: Int = elementsPerPiece
  ) -> Int {
    let row = type.valuesPerBlock > 1 ? max(1, weight.shape.last ?? 1) : 1
    return max(1, elements / row) * row * max(1, weight.type.bitWidth / 8)
  }

  package func makeState(for weight: TensorInfo) -> (any Sendable)? {
    guard let feedback, canFeedBack(weight), let block = type.blockType else { return nil }
    return WeightFeedback(weight, block, feedback)
  }

  private func canFeedBack(_ weight: TensorInfo) -> Bool {
    feedback?.hasFactor(for: weight) == true && Self.canFeedBack(weight, type)
  }

  /// Whether errors can be made good in a weight: a matrix in blocks with a level for every value.
  package static func canFeedBack(_ weight: TensorInfo, _ type: GGMLType) -> Bool {
    guard weight.shape.count == 2, let columns = weight.shape.last, columns > 0 else { return false }
    return type.blockType?.levels != nil && columns % type.valuesPerBlock == 0
  }

  package func encode(_ piece: Piece, from input: PieceInput, into buffer: PieceBuffer) throws(Failure) {
    let info = piece.work.info
    let count = piece.elements.count
    var target = buffer.makeOutput(count / type.valuesPerBlock * type.bytesPerBlock)
    if target.isEmpty { return }
    if type.elementType == info.type { return try input.read(into: &target) }
    let values = try buffer.read(input)
    if let float = FloatType(ggml: type) { return try narrow(values, info, to: float, into: &target, piece) }
    guard let block = type.blockType else {
      throw Failure(.internal, "no encoder for \(type.name)", tensor: info.name.string)
    }
    if info.type == .f32 { return try encode(values.floats, as: block, into: &target, piece) }
    var wide = buffer.makeFloats(count)
    try narrow(values, info, to: .f32, into: &wide, piece)
    try encode(wide.bytes.floats, as: block, into: &target, piece)
  }

  private func encode(
    _ values: Span<Float>, as block: BlockType, into target: inout MutableRawSpan, _ piece: Piece
  ) throws(Failure) {
    let info = piece.work.info
    let row = info.shape.last ?? 1
    let begin = piece.elements.lowerBound
    if let feedback = try (piece.work.state as? WeightFeedback)?.feedback() {
      do throws(NonFinite) { return try feedback.encode(values, into: &target) } catch {
        guard error.value.isFinite || !values[error.index].isFinite else {
          throw Failure(
            .malformed, "element \(begin + error.index) becomes \(error.value) as errors are made good in it",
            tensor: info.name.string)
        }
        throw notEncodable(error, at: begin, info)
      }
    }
    func encode(
      _ values: Span<Float>, _ importance: Span<Float>?, at start: Int, into target: inout MutableRawSpan
    ) throws(Failure) {
      do throws(NonFinite) {
        try block.encode(values, rowLength: row, importance: importance, into: &target)
      } catch { throw notEncodable(error, at: begin + start, info) }
    }
    if let importance {
      // One list of columns for each expert: the rows of one matrix share theirs.
      let matrix = row * (info.shape.dropLast().last ?? 1)
      let weights = importance.span
      var done = 0
      while done < values.count {
        let element = begin + done
        let expert = weights.count > row ? element / matrix : 0
        let count = min(values.count - done, matrix - element % matrix)
        let bytes = done / block.valuesPerBlock * block.bytesPerBlock
        var rest = target.part(bytes..<target.byteCount)
        try encode(
          values.extracting(done..<done + count), weights.extracting(expert * row..<(expert + 1) * row), at: done,
          into: &rest)
        done += count
      }
    } else {
      try encode(values, nil, at: 0, into: &target)
    }
  }

  private func notEncodable(_ error: NonFinite, at index: Int, _ info: TensorInfo) -> Failure {
    let value = error.value
    let problem =
      value.isFinite
      ? "whose scale 16 bits cannot hold as \(type.name.uppercased())" : "a model to be quantized must be finite"
    return Failure(.malformed, "element \(index + error.index) is \(value), \(problem)", tensor: info.name.string)
  }

  private func narrow(
    _ input: RawSpan, _ info: TensorInfo, to type: FloatType, into target: inout MutableRawSpan, _ piece: Piece
  ) throws(Failure) {
    do throws(Overflow) {
      if let from = FloatType(info.type) {
        try convert(input, from: from, to: type, into: &target)
      } else {
        try Quantization.narrow(input, to: type, into: &target)
      }
    } catch {
      throw Failure(
        .malformed,
        "element \(piece.elements.lowerBound + error.index) is \(error.value), beyond the range of \(type.torchName)",
        tensor: info.name.string)
    }
  }
}

/// Stores a tensor of a GGUF model as it is there, whatever its values are read as.
struct StoredBlocks: TensorEncoder {
  let checkpoint: GGUFCheckpoint
  /// Position of the tensor in the checkpoint.
  let index: Int
  var isFlat = false

  var schemeName: String? { type.isQuantized ? type.name.uppercased() : nil }

  private var type: GGMLType { checkpoint.tensors[index].type }

  func outputs(for weight: TensorInfo) throws(Failure) -> [StoredTensor] {
    [try StoredTensor(BlockEncoder.tensor(weight, type, isFlat: isFlat))]
  }

  func pieceByteCount(for weight: TensorInfo) -> Int { BlockEncoder.pieceByteCount(for: weight, type) }

  func storedByteCount(of weight: TensorInfo) -> Int? { checkpoint.tensors[index].byteCount }

  func encode(_ piece: Piece, from input: PieceInput, into buffer: PieceBuffer) throws(Failure) {
    let count = piece.elements.count / type.valuesPerBlock * type.bytesPerBlock
    let start = piece.elements.lowerBound / type.valuesPerBlock * type.bytesPerBlock
    var output = buffer.makeOutput(count)
    try checkpoint.read(index, at: start, into: &output)
  }
}

extension FloatType {
  package init?(ggml type: GGMLType) {
    guard let element = type.elementType, let match = FloatType(element) else { return nil }
    self = match
  }
}
