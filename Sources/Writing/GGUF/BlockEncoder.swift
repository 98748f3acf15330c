package import Bytes
import Checkpoints
package import GGUF
import Quantization
package import Tensors

/// Stores a tensor in a type of ggml: in blocks of a few bits, or in another dtype.
package struct BlockEncoder: TensorEncoder {
  package let type: GGMLType
  /// Whether its shape is written without dimensions of 1 in front, as ggml does, which has always four of them.
  package var isFlat = false
  /// What has been recorded of how much each column matters: one list, or one for each expert.
  package var importance: [Float]?

  /// Values of one piece, unless one row has more: their f32 form fits a core's private cache.
  package var schemeName: String? { type.isQuantized ? type.name.uppercased() : nil }

  private static let elementsPerPiece = 1 << 17

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
    Self.pieceByteCount(for: weight, type)
  }

  package static func pieceByteCount(for weight: TensorInfo, _ type: GGMLType) -> Int {
    let row = type.valuesPerBlock > 1 ? max(1, weight.shape.last ?? 1) : 1
    return max(1, elementsPerPiece / row) * row * max(1, weight.type.bitWidth / 8)
  }

  package func encode(_ piece: Piece, from input: PieceInput, into buffer: PieceBuffer) throws(Failure) {
    let info = piece.work.info
    let count = piece.elements.count
    let target = unsafe buffer.makeOutput(count / type.valuesPerBlock * type.bytesPerBlock)
    if unsafe target.isEmpty { return }
    if type.elementType == info.type { return try unsafe input.read(into: target) }
    let values = try unsafe buffer.read(input)
    if let float = FloatType(ggml: type) { return try unsafe narrow(values, info, to: float, into: target, piece) }
    guard let block = type.blockType else {
      throw Failure(.internal, "no encoder for \(type.name)", tensor: info.name.string)
    }
    var floats = unsafe values
    if info.type != .f32 {
      let wide = unsafe buffer.makeFloats(count)
      try unsafe narrow(values, info, to: .f32, into: wide, piece)
      unsafe floats = UnsafeRawBufferPointer(wide)
    }
    try unsafe encode(floats.bindMemory(to: Float.self), as: block, into: target, piece)
  }

  private func encode(
    _ values: UnsafeBufferPointer<Float>, as block: BlockType, into target: UnsafeMutableRawBufferPointer,
    _ piece: Piece
  ) throws(Failure) {
    let info = piece.work.info
    let row = info.shape.last ?? 1
    let begin = piece.elements.lowerBound
    var failure: Failure?
    func encode(
      _ values: UnsafeBufferPointer<Float>, _ importance: UnsafeBufferPointer<Float>?, at start: Int,
      into target: UnsafeMutableRawBufferPointer
    ) {
      do throws(NonFinite) {
        try unsafe block.encode(values, rowLength: row, importance: importance, into: target)
      } catch {
        failure = failure ?? notEncodable(error, at: begin + start, info)
      }
    }
    if let importance {
      // One list of columns for each expert: the rows of one matrix share theirs.
      let matrix = row * (info.shape.dropLast().last ?? 1)
      unsafe importance.withUnsafeBufferPointer { weights in
        var done = 0
        while done < values.count {
          let element = begin + done
          let expert = weights.count > row ? element / matrix : 0
          let count = min(values.count - done, matrix - element % matrix)
          let bytes = done / block.valuesPerBlock * block.bytesPerBlock
          unsafe encode(
            UnsafeBufferPointer(rebasing: values[done..<done + count]),
            UnsafeBufferPointer(rebasing: weights[expert * row..<(expert + 1) * row]), at: done,
            into: UnsafeMutableRawBufferPointer(rebasing: target[bytes...]))
          done += count
        }
      }
    } else {
      unsafe encode(values, nil, at: 0, into: target)
    }
    if let failure { throw failure }
  }

  private func notEncodable(_ error: NonFinite, at index: Int, _ info: TensorInfo) -> Failure {
    let value = error.value
    let problem =
      value.isFinite
      ? "whose scale 16 bits cannot hold as \(type.name.uppercased())" : "a model to be quantized must be finite"
    return Failure(.malformed, "element \(index + error.index) is \(value), \(problem)", tensor: info.name.string)
  }

  private func narrow(
    _ input: UnsafeRawBufferPointer, _ info: TensorInfo, to type: FloatType,
    into target: UnsafeMutableRawBufferPointer, _ piece: Piece
  ) throws(Failure) {
    do throws(Overflow) {
      if let from = FloatType(info.type) {
        try unsafe convert(input, from: from, to: type, into: target)
      } else {
        try unsafe Quantization.narrow(input, to: type, into: target)
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
    try unsafe checkpoint.read(index, at: start, into: buffer.makeOutput(count))
  }
}

extension FloatType {
  package init?(ggml type: GGMLType) {
    guard let element = type.elementType, let match = FloatType(element) else { return nil }
    self = match
  }
}
