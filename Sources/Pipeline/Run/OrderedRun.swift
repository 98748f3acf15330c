import Bytes
import Quantization
import Tensors

/// Runs a plan: pieces are read and quantized in parallel and written in file order.
///
/// Memory is the ring of pieces in flight plus the block maxima of the tensors in it; nothing grows with
/// the model. What is written does not depend on the number of workers or on the size of a piece.
struct OrderedRun {
  let plan: OutputPlan
  let jobs: Int
  let progress: Progress

  /// Values of one piece. A multiple of every block size in every type, and small enough for a core's
  /// private cache.
  static let pieceBytes = 512 * 1024

  func run(into writer: ShardWriter) throws(Failure) {
    let stream = OrderedStream<Cursor, PieceBuffer>(jobs: jobs) { PieceBuffer(capacity: Self.pieceBytes) }
    try stream.run(Cursor(plan: plan)) { piece, buffer throws(Failure) in
      try buffer.fill(piece, from: plan.source, plan.scheme)
    } drain: { piece, buffer throws(Failure) in
      try writer.write(piece, buffer)
      progress.advance(by: plan.inputByteCount(of: piece.range, piece.work.step))
    }
  }

  /// The plan's tensors cut into pieces, in file order.
  private struct Cursor: PieceCursor {
    let plan: OutputPlan
    var stepIndex = 0
    var position = 0
    var work: TensorWork?

    init(plan: OutputPlan) { self.plan = plan }

    mutating func next() -> Piece? {
      guard stepIndex < plan.steps.count else { return nil }
      let work = self.work ?? begin(plan.steps[stepIndex])
      let end = min(position + OrderedRun.pieceBytes, work.info.byteCount)
      let piece = Piece(work: work, stepIndex: stepIndex, range: position..<end)
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
      let info = plan.info(of: step)
      let blocks = step.action == .copy ? 0 : plan.scheme?.format.blockCount(info.elementCount) ?? 0
      return TensorWork(step, info, blocks: blocks)
    }
  }
}
