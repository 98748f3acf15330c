package import Bytes
import Checkpoints
package import Tensors

/// One weight while its pieces are under way.
package final class TensorWork: Sendable {
  package let step: Step
  /// Position in the plan's steps.
  let stepIndex: Int
  package let info: TensorInfo
  package let encoder: any TensorEncoder
  /// The encoder's state: workers fill disjoint parts, the writer reads it when all pieces are done.
  package let state: (any Sendable)?
  package let pieceByteCount: Int

  package init(_ step: Step, at stepIndex: Int, _ info: TensorInfo, _ encoder: any TensorEncoder) {
    self.step = step
    self.stepIndex = stepIndex
    self.info = info
    self.encoder = encoder
    state = encoder.makeState(for: info)
    pieceByteCount = encoder.pieceByteCount(for: info)
  }
}

/// A part of a weight: what one worker does in one go.
package struct Piece: Sendable {
  /// Bytes of the weight's values, unless its encoder wants others. A multiple of every block size in every type, and
  /// small enough for a core's private cache.
  package static let byteCount = 512 * 1024

  package var work: TensorWork
  /// Bytes of the weight's values, as the source gives them.
  package var range: Range<Int>

  package init(work: TensorWork, range: Range<Int>) {
    self.work = work
    self.range = range
  }

  package var isFirst: Bool { range.lowerBound == 0 }
  package var isLast: Bool { range.upperBound == work.info.byteCount }

  /// The same range in elements of a type that fills whole bytes.
  package var elements: Range<Int> {
    let width = max(1, work.info.type.bitWidth / 8)
    return range.lowerBound / width..<range.upperBound / width
  }
}

/// A plan's weights cut into pieces, in file order.
package struct PlanCursor: PieceCursor {
  private let plan: WritePlan
  private var stepIndex = 0
  private var position = 0
  private var work: TensorWork?

  package init(_ plan: WritePlan) { self.plan = plan }

  package mutating func next() -> Piece? {
    guard stepIndex < plan.steps.count else { return nil }
    let work = self.work ?? begin(plan.steps[stepIndex])
    let end = position + min(work.pieceByteCount, work.info.byteCount - position)
    let piece = Piece(work: work, range: position..<end)
    if piece.isLast {
      stepIndex += 1
      position = 0
      self.work = nil
    } else {
      position = end
      self.work = work
    }
    return piece
  }

  private func begin(_ step: Step) -> TensorWork {
    TensorWork(step, at: stepIndex, plan.info(of: step), plan.encoder(of: step))
  }
}

/// Where an encoder gets the values of its piece from.
package struct PieceInput {
  let source: any TensorSource
  let piece: Piece
  private let original: OriginalBytes

  init(_ source: any TensorSource, _ piece: Piece, original: OriginalBytes) {
    self.source = source
    self.piece = piece
    self.original = original
  }

  /// Reads the values of the piece.
  ///
  /// - Parameter destination: of the piece's size.
  func read(into destination: inout MutableRawSpan) throws(Failure) {
    let (tensor, offset) = (piece.work.step.tensor, piece.range.lowerBound)
    guard case .traced = piece.work.step.origin else {
      return try source.read(tensor, at: offset, into: &destination)
    }
    original.clear()
    try source.read(tensor, at: offset, into: &destination, original: original)
  }
}

/// Memory for one piece in flight, as large as the largest so far.
@safe package final class PieceBuffer: @unchecked Sendable {
  private var values = GrowingBuffer()
  private var widened = GrowingBuffer()
  private var encoded = GrowingBuffer()
  /// The stored bytes of a traced piece. Values may be stored in twice as many bytes as they are written in.
  private let original = OriginalBytes(capacity: 2 * Piece.byteCount)

  package init() {}

  /// The values that were read; empty when the encoder has them in `output`.
  package var input: RawSpan {
    @_lifetime(borrow self)
    get { unsafe _overrideLifetime(RawSpan(_unsafeBytes: values.bytes), borrowing: self) }
  }

  /// The stored bytes that the values of a traced piece were computed from.
  package var stored: OriginalBytes { original }

  /// The bytes that are to be written.
  package var output: RawSpan {
    @_lifetime(borrow self)
    get { unsafe _overrideLifetime(RawSpan(_unsafeBytes: encoded.bytes), borrowing: self) }
  }

  /// Reads and encodes a piece.
  package func fill(_ piece: Piece, from source: any TensorSource) throws(Failure) {
    values.clear()
    widened.clear()
    encoded.clear()
    try piece.work.encoder.encode(piece, from: PieceInput(source, piece, original: original), into: self)
  }

  /// Room for what is to be written.
  @_lifetime(borrow self)
  func makeOutput(_ byteCount: Int) -> MutableRawSpan {
    unsafe _overrideLifetime(MutableRawSpan(_unsafeBytes: encoded.room(byteCount)), borrowing: self)
  }

  /// Reads the values of a piece into a buffer of their own.
  @_lifetime(borrow self)
  package func read(_ input: PieceInput) throws(Failure) -> RawSpan {
    var room = unsafe MutableRawSpan(_unsafeBytes: values.room(input.piece.range.count))
    try input.read(into: &room)
    return self.input
  }

  /// Room for the values in 32 bits.
  @_lifetime(borrow self)
  func makeFloats(_ count: Int) -> MutableRawSpan {
    unsafe _overrideLifetime(MutableRawSpan(_unsafeBytes: widened.room(4 * count)), borrowing: self)
  }
}

/// Memory that is made anew when it is too small. A piece takes its room once, so that none of what it was given is
/// taken away from it.
@safe private struct GrowingBuffer: ~Copyable {
  private var memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 0, alignment: 64)
  private var count: Int?

  deinit { unsafe memory.deallocate() }

  /// The bytes of the room that was taken.
  var bytes: UnsafeRawBufferPointer { unsafe UnsafeRawBufferPointer(rebasing: memory[..<(count ?? 0)]) }

  mutating func clear() { count = nil }

  mutating func room(_ byteCount: Int) -> UnsafeMutableRawBufferPointer {
    precondition(count == nil, "room is taken once for each piece")
    if unsafe memory.count < byteCount {
      unsafe memory.deallocate()
      unsafe memory = .allocate(byteCount: byteCount, alignment: 64)
    }
    count = byteCount
    return unsafe UnsafeMutableRawBufferPointer(rebasing: memory[..<byteCount])
  }
}
