import Bytes
import Dispatch
import Quantization
import Synchronization
import Tensors

/// Runs a plan: pieces are computed by several workers, written in file order by whichever worker finds
/// the next one ready.
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

  private struct State: Sendable {
    var stepIndex = 0
    var position = 0
    var work: TensorWork?
    /// Pieces handed out, and pieces written.
    var claimed = 0
    var written = 0
    var isWriting = false
    var isStopped = false
    var failure: Failure?
    /// Pieces computed but not yet written, by ticket modulo the ring's size.
    var ready: [Result<Piece, Failure>?]
  }

  private enum Claim {
    case piece(Piece, ticket: Int)
    case finished
  }

  /// - Throws: the first failure in file order, whatever the order of discovery.
  func run(into writer: ShardWriter) throws(Failure) {
    let ring = 2 * jobs + 2
    let buffers = (0..<ring).map { _ in PieceBuffer(capacity: Self.pieceBytes) }
    let monitor = Monitor(State(ready: Array(repeating: nil, count: ring)))
    let shared = Shared(writer)
    DispatchQueue.concurrentPerform(iterations: jobs) { _ in
      while true {
        let claim: Claim = monitor.wait { state in
          if state.isStopped { return .finished }
          if state.claimed - state.written >= ring { return nil }
          do throws(Failure) {
            try Interruption.check()
            return next(&state)
          } catch {
            state.failure = error
            state.isStopped = true
            return .finished
          }
        }
        guard case .piece(let piece, let ticket) = claim else { return }
        var result = Result<Piece, Failure>.success(piece)
        do throws(Failure) {
          try buffers[ticket % ring].fill(piece, from: plan.source, plan.scheme)
        } catch { result = .failure(error) }
        monitor.withLock { $0.ready[ticket % ring] = result }
        drain(monitor, buffers, shared)
      }
    }
    if let failure = monitor.withLock({ $0.failure }) { throw failure }
  }

  /// The next piece in file order.
  private func next(_ state: inout State) -> Claim {
    guard state.stepIndex < plan.steps.count else { return .finished }
    let step = plan.steps[state.stepIndex]
    let work: TensorWork
    if let current = state.work {
      work = current
    } else {
      let info = plan.info(of: step)
      let blocks = step.action == .copy ? 0 : plan.scheme?.format.blockCount(info.elementCount) ?? 0
      work = TensorWork(step, info, blocks: blocks)
      state.work = work
    }
    let end = min(state.position + Self.pieceBytes, work.info.byteCount)
    let piece = Piece(work: work, stepIndex: state.stepIndex, range: state.position..<end)
    state.position = end
    if piece.isLast {
      state.stepIndex += 1
      state.position = 0
      state.work = nil
    }
    state.claimed += 1
    return .piece(piece, ticket: state.claimed - 1)
  }

  /// Writes ready pieces in order, unless another worker is doing so.
  private func drain(_ monitor: Monitor<State>, _ buffers: [PieceBuffer], _ shared: Shared) {
    let ring = buffers.count
    while true {
      let turn: (result: Result<Piece, Failure>, slot: Int)? = monitor.withLock { state in
        let slot = state.written % ring
        guard !state.isWriting, !state.isStopped, let result = state.ready[slot] else { return nil }
        state.isWriting = true
        return (result, slot)
      }
      guard let turn else { return }
      var failure: Failure?
      do throws(Failure) {
        let piece = try turn.result.get()
        try shared.writer.write(piece, buffers[turn.slot])
        progress.advance(by: piece.range.count)
      } catch { failure = error }
      monitor.withLock { state in
        state.ready[turn.slot] = nil
        state.written += 1
        state.isWriting = false
        if let failure {
          state.failure = state.failure ?? failure
          state.isStopped = true
        }
      }
    }
  }

  /// The writer, entered by one worker at a time: `isWriting` sees to that.
  private final class Shared: @unchecked Sendable {
    let writer: ShardWriter
    init(_ writer: ShardWriter) { self.writer = writer }
  }
}
