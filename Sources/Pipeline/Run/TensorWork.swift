import Bytes
import Quantization
import Tensors

/// One tensor while its pieces are under way. Workers fill disjoint parts of `absmax`; the writer reads
/// them when all pieces of the tensor are done.
@safe final class TensorWork: @unchecked Sendable {
  let step: Step
  let info: TensorInfo
  /// One for each block of the whole tensor; empty unless the step quantizes.
  let absmax: UnsafeMutableBufferPointer<Float>

  init(_ step: Step, _ info: TensorInfo, blocks: Int) {
    self.step = step
    self.info = info
    unsafe absmax = .allocate(capacity: blocks)
  }

  deinit { unsafe absmax.deallocate() }
}

/// A piece of a tensor: what one worker does in one go.
struct Piece: Sendable {
  var work: TensorWork
  /// Position in the plan's steps.
  var stepIndex: Int
  /// Bytes of the tensor's values.
  var range: Range<Int>

  var isFirst: Bool { range.lowerBound == 0 }
  var isLast: Bool { range.upperBound == work.info.byteCount }
}

/// Memory for one piece in flight: its values, and its codes when it is quantized.
@safe final class PieceBuffer: @unchecked Sendable {
  private let values: UnsafeMutableRawBufferPointer
  private let codes: UnsafeMutableRawBufferPointer
  private var valueCount = 0
  private var codeCount = 0
  /// What a traced piece was made of.
  private let original: ScratchBytes

  init(capacity: Int) {
    unsafe values = .allocate(byteCount: capacity, alignment: 64)
    unsafe codes = .allocate(byteCount: capacity / 4 + 64, alignment: 64)
    // Values may be stored in twice as many bytes as they are written in.
    original = ScratchBytes(capacity: 2 * capacity)
  }

  deinit {
    unsafe values.deallocate()
    unsafe codes.deallocate()
  }

  /// The values as they were read.
  var input: UnsafeRawBufferPointer { unsafe UnsafeRawBufferPointer(rebasing: values[..<valueCount]) }

  /// The stored bytes that the values of a traced piece were computed from.
  var stored: UnsafeRawBufferPointer { unsafe original.bytes }

  /// What is to be written.
  var output: UnsafeRawBufferPointer {
    codeCount > 0 ? unsafe UnsafeRawBufferPointer(rebasing: codes[..<codeCount]) : unsafe input
  }

  /// Reads the piece, and quantizes it when the step says so.
  ///
  /// - Throws: `malformed` for a value that is not finite, with its index.
  func fill(_ piece: Piece, from source: any TensorSource, _ scheme: FourBitScheme?) throws(Failure) {
    let step = piece.work.step
    valueCount = piece.range.count
    codeCount = 0
    let target = unsafe UnsafeMutableRawBufferPointer(rebasing: values[..<valueCount])
    if case .traced = step.origin {
      guard let source = source as? any TracingSource else {
        throw Failure(.internal, "a source that cannot be traced")
      }
      original.clear()
      try unsafe source.read(step.tensor, at: piece.range.lowerBound, into: target, original: original)
    } else {
      try unsafe source.read(step.tensor, at: piece.range.lowerBound, into: target)
    }
    guard case .quantize(let type) = step.action, let format = scheme?.format else {
      if step.mustBeFinite { try checkFinite(piece, scheme) }
      return
    }
    let count = valueCount / type.byteCount
    let start = piece.range.lowerBound / type.byteCount
    codeCount = format.packedByteCount(count)
    let firstBlock = start / format.blockSize
    let blocks = unsafe UnsafeMutableBufferPointer(
      rebasing: piece.work.absmax[firstBlock..<firstBlock + format.blockCount(count)])
    do throws(NonFinite) {
      try unsafe format.quantize(
        input, as: type, codes: UnsafeMutableRawBufferPointer(rebasing: codes[..<codeCount]), absmax: blocks)
    } catch {
      throw nonFinite(error.value, at: start + error.index, piece, scheme)
    }
  }

  private func checkFinite(_ piece: Piece, _ scheme: FourBitScheme?) throws(Failure) {
    guard let type = FloatType(piece.work.info.type) else { return }
    var statistics = ValueStatistics()
    unsafe statistics.add(input, as: type)
    if statistics.finite == statistics.count { return }
    // Rare enough to look for it one by one.
    for index in 0..<statistics.count {
      var value: Float = 0
      unsafe withUnsafeMutableBytes(of: &value) { output in
        let one = unsafe UnsafeRawBufferPointer(rebasing: input[index * type.byteCount..<(index + 1) * type.byteCount])
        // Nothing is too large for f32.
        try? unsafe convert(one, from: type, to: .f32, into: output)
      }
      if value.isFinite { continue }
      throw nonFinite(value, at: piece.range.lowerBound / type.byteCount + index, piece, scheme)
    }
  }

  private func nonFinite(_ value: Float, at index: Int, _ piece: Piece, _ scheme: FourBitScheme?) -> Failure {
    let fate = scheme == nil ? "merged" : "quantized"
    return Failure(
      .malformed, "element \(index) is \(value), a model to be \(fate) must be finite",
      tensor: piece.work.info.name.string)
  }
}
