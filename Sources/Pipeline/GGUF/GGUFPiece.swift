import Bytes
import GGUF
import Quantization
import Tensors

/// Some rows of a tensor: what one worker does in one go.
struct GGUFPiece: Sendable {
  /// Position in the plan.
  var tensor: Int
  /// Elements of the tensor: whole rows, where its type has blocks.
  var elements: Range<Int>
  var isFirst: Bool { elements.lowerBound == 0 }
  var isLast: Bool
}

/// The plan's tensors cut into pieces, in file order.
struct GGUFCursor: PieceCursor {
  /// Values of one piece, unless one row has more: their f32 form fits a core's private cache.
  static let elementsPerPiece = 1 << 17

  let tensors: [GGUFTensor]
  private var current = 0
  private var element = 0

  init(_ tensors: [GGUFTensor]) { self.tensors = tensors }

  mutating func next() -> GGUFPiece? {
    guard current < tensors.count else { return nil }
    let tensor = tensors[current]
    let row = tensor.type.valuesPerBlock > 1 ? max(1, tensor.shape.last ?? 1) : 1
    let step = max(1, Self.elementsPerPiece / row) * row
    let end = min(tensor.elementCount - element, step) + element
    let piece = GGUFPiece(tensor: current, elements: element..<end, isLast: end == tensor.elementCount)
    element = end
    if piece.isLast {
      current += 1
      element = 0
    }
    return piece
  }
}

/// Memory for one piece in flight, as large as the largest so far.
@safe final class GGUFBuffer: @unchecked Sendable {
  private var values = ScratchBuffer(byteCount: 0)
  private var floats = ScratchBuffer(byteCount: 0)
  private var encoded = ScratchBuffer(byteCount: 0)
  private var capacity = (values: 0, floats: 0, encoded: 0)
  private var outputCount = 0

  /// What is to be written.
  var output: UnsafeRawBufferPointer { unsafe UnsafeRawBufferPointer(rebasing: encoded.bytes[..<outputCount]) }

  /// Reads the piece and turns it into its type.
  ///
  /// - Throws: `malformed` for a value that the type cannot hold, with its index.
  func fill(_ piece: GGUFPiece, of plan: GGUFPlan) throws(Failure) {
    let tensor = plan.tensors[piece.tensor]
    let info = plan.source.tensors[piece.tensor]
    let count = piece.elements.count
    let width = info.type.bitWidth / 8
    outputCount = count / tensor.type.valuesPerBlock * tensor.type.bytesPerBlock
    if outputCount == 0 { return }
    Self.reserve(&encoded, &capacity.encoded, outputCount)
    let target = unsafe UnsafeMutableRawBufferPointer(rebasing: encoded.mutableBytes[..<outputCount])
    if let stored = plan.stored, let index = plan.copies[piece.tensor] {
      let start = piece.elements.lowerBound / tensor.type.valuesPerBlock * tensor.type.bytesPerBlock
      return try unsafe stored.read(index, at: start, into: target)
    }
    if tensor.type.elementType == info.type {
      return try unsafe plan.source.read(piece.tensor, at: piece.elements.lowerBound * width, into: target)
    }
    Self.reserve(&values, &capacity.values, count * width)
    let read = unsafe UnsafeMutableRawBufferPointer(rebasing: values.mutableBytes[..<(count * width)])
    try unsafe plan.source.read(piece.tensor, at: piece.elements.lowerBound * width, into: read)
    let input = UnsafeRawBufferPointer(read)
    if let type = FloatType(ggml: tensor.type) {
      return try unsafe narrow(input, info, to: type, into: target, piece)
    }
    guard let type = tensor.type.blockType else {
      throw Failure(.internal, "no encoder for \(tensor.type.name)", tensor: tensor.name.string)
    }
    var floatInput = unsafe input
    if info.type != .f32 {
      Self.reserve(&floats, &capacity.floats, count * 4)
      let wide = unsafe UnsafeMutableRawBufferPointer(rebasing: floats.mutableBytes[..<(count * 4)])
      try unsafe narrow(input, info, to: .f32, into: wide, piece)
      unsafe floatInput = UnsafeRawBufferPointer(wide)
    }
    try unsafe encode(floatInput.bindMemory(to: Float.self), as: type, into: target, piece, plan)
  }

  private func encode(
    _ values: UnsafeBufferPointer<Float>, as type: BlockType, into target: UnsafeMutableRawBufferPointer,
    _ piece: GGUFPiece, _ plan: GGUFPlan
  ) throws(Failure) {
    let tensor = plan.tensors[piece.tensor]
    let row = tensor.shape.last ?? 1
    var failure: Failure?
    func encode(
      _ values: UnsafeBufferPointer<Float>, _ importance: UnsafeBufferPointer<Float>?, at start: Int,
      into target: UnsafeMutableRawBufferPointer
    ) {
      do throws(NonFinite) {
        try unsafe type.encode(values, rowLength: row, importance: importance, into: target)
      } catch {
        failure = failure ?? notEncodable(error, at: piece.elements.lowerBound + start, tensor)
      }
    }
    if let importance = plan.importance[piece.tensor] {
      // One list of columns for each expert: the rows of one matrix share theirs.
      let matrix = row * (tensor.shape.dropLast().last ?? 1)
      unsafe importance.withUnsafeBufferPointer { weights in
        var done = 0
        while done < values.count {
          let element = piece.elements.lowerBound + done
          let expert = weights.count > row ? element / matrix : 0
          let count = min(values.count - done, matrix - element % matrix)
          let bytes = done / type.valuesPerBlock * type.bytesPerBlock
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

  private func notEncodable(_ error: NonFinite, at start: Int, _ tensor: GGUFTensor) -> Failure {
    let value = error.value
    let problem =
      value.isFinite
      ? "whose scale 16 bits cannot hold as \(tensor.type.name.uppercased())" : "a model to be quantized must be finite"
    return Failure(.malformed, "element \(start + error.index) is \(value), \(problem)", tensor: tensor.name.string)
  }

  private func narrow(
    _ input: UnsafeRawBufferPointer, _ info: TensorInfo, to type: FloatType,
    into target: UnsafeMutableRawBufferPointer, _ piece: GGUFPiece
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

  private static func reserve(_ buffer: inout ScratchBuffer, _ capacity: inout Int, _ count: Int) {
    if capacity >= count { return }
    buffer = ScratchBuffer(byteCount: count)
    capacity = count
  }
}

extension FloatType {
  init?(ggml type: GGMLType) {
    guard let element = type.elementType, let match = FloatType(element) else { return nil }
    self = match
  }
}
