import Dispatch

/// The pieces of work, one by one, in order.
package protocol PieceCursor: Sendable {
  associatedtype Piece: Sendable
  /// The next piece; nil after the last. Called by one worker at a time.
  mutating func next() -> Piece?
}

/// Things that follow each other, each cut into ranges of at most one length.
///
/// A thing of nothing is one empty range.
package struct RangeCursor: PieceCursor {
  package struct Piece: Sendable {
    /// The position of the thing that it is a part of.
    package var item: Int
    package var range: Range<Int>
  }

  private let counts: [Int]
  private let limit: Int
  private var item = 0
  private var position = 0

  /// - Parameters:
  ///   - counts: the length of each thing.
  ///   - limit: the length of a piece, but for the last of each thing.
  package init(_ counts: [Int], limit: Int) {
    self.counts = counts
    self.limit = limit
  }

  package mutating func next() -> Piece? {
    guard item < counts.count else { return nil }
    let end = position + min(limit, counts[item] - position)
    let piece = Piece(item: item, range: position..<end)
    position = end
    if end == counts[item] {
      item += 1
      position = 0
    }
    return piece
  }
}

/// Pieces are filled by several workers at once and drained in order, by whichever worker finds the next
/// one ready.
///
/// Memory is the ring of buffers in flight. The order of draining, and so what is written, does not depend
/// on the number of workers.
package struct OrderedStream<Cursor: PieceCursor, Buffer: AnyObject & Sendable>: Sendable {
  package let jobs: Int
  let makeBuffer: @Sendable () -> Buffer

  package init(jobs: Int, makeBuffer: @escaping @Sendable () -> Buffer) {
    self.jobs = jobs
    self.makeBuffer = makeBuffer
  }

  private struct State: Sendable {
    var cursor: Cursor
    /// The numbers of pieces handed out and of pieces drained.
    var claimed = 0
    var drained = 0
    var isDraining = false
    var isStopped = false
    var failure: Failure?
    /// Pieces filled but not yet drained, by ticket modulo the ring's size.
    var ready: [Result<Cursor.Piece, Failure>?]
  }

  private enum Claim {
    case piece(Cursor.Piece, ticket: Int)
    case finished
  }

  /// - Parameters:
  ///   - fill: called by many workers at once, each with a buffer of its own.
  ///   - drain: called by one worker at a time, in order.
  /// - Throws: the first failure in the order of pieces, whatever the order of discovery.
  package func run(
    _ cursor: Cursor,
    fill: @Sendable (Cursor.Piece, Buffer) throws(Failure) -> Void,
    drain: (Cursor.Piece, Buffer) throws(Failure) -> Void
  ) throws(Failure) {
    let ring = 2 * jobs + 2
    let buffers = (0..<ring).map { _ in makeBuffer() }
    let monitor = Monitor(State(cursor: cursor, ready: Array(repeating: nil, count: ring)))
    try withoutActuallyEscaping(drain) { (drain) throws(Failure) in
      let turns = Turns(drain)
      DispatchQueue.concurrentPerform(iterations: jobs) { _ in
        while case .piece(let piece, let ticket) = claim(monitor, ring) {
          let slot = ticket % ring
          var result = Result<Cursor.Piece, Failure>.success(piece)
          do throws(Failure) { try fill(piece, buffers[slot]) } catch { result = .failure(error) }
          monitor.withLock { $0.ready[slot] = result }
          drainReady(monitor, buffers, turns)
        }
      }
    }
    if let failure = monitor.withLock({ $0.failure }) { throw failure }
  }

  private func claim(_ monitor: Monitor<State>, _ ring: Int) -> Claim {
    monitor.wait { state in
      if state.isStopped { return .finished }
      if state.claimed - state.drained >= ring { return nil }
      do throws(Failure) { try Interruption.check() } catch {
        state.failure = error
        state.isStopped = true
        return .finished
      }
      guard let piece = state.cursor.next() else { return .finished }
      state.claimed += 1
      return .piece(piece, ticket: state.claimed - 1)
    }
  }

  private func drainReady(_ monitor: Monitor<State>, _ buffers: [Buffer], _ turns: Turns) {
    while true {
      let turn: (result: Result<Cursor.Piece, Failure>, slot: Int)? = monitor.withLock { state in
        let slot = state.drained % buffers.count
        guard !state.isDraining, !state.isStopped, let result = state.ready[slot] else { return nil }
        state.isDraining = true
        return (result, slot)
      }
      guard let turn else { return }
      var failure: Failure?
      do throws(Failure) { try turns.drain(turn.result.get(), buffers[turn.slot]) } catch { failure = error }
      monitor.withLock { state in
        state.ready[turn.slot] = nil
        state.drained += 1
        state.isDraining = false
        if let failure {
          state.failure = state.failure ?? failure
          state.isStopped = true
        }
      }
    }
  }

  /// The drain, entered by one worker at a time: `isDraining` sees to that.
  private final class Turns: @unchecked Sendable {
    let drain: (Cursor.Piece, Buffer) throws(Failure) -> Void
    init(_ drain: @escaping (Cursor.Piece, Buffer) throws(Failure) -> Void) { self.drain = drain }
  }
}
