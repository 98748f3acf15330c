package import Bytes
package import Console
import Synchronization
import Tensors

/// Finds tensors that are stored in the same way and with the same bytes, as most are when a checkpoint is
/// copied or partly trained: they need no arithmetic.
package struct ByteComparison {
  package let pair: CheckpointPair
  package let jobs: Int
  package let style: Progress.Style

  package init(pair: CheckpointPair, jobs: Int, style: Progress.Style) {
    self.pair = pair
    self.jobs = jobs
    self.style = style
  }

  /// Bytes of either side read at a time; both fit a core's private cache.
  private static let pieceBytes = 256 * 1024

  private struct Part: Sendable {
    /// The position among the pairs.
    var position: Int
    var a: Int
    var b: Int
    var byteCount: Int
  }

  /// Positions found to differ so far, asked and told by all workers.
  private final class Found: Sendable {
    private let positions = Mutex<Set<Int>>([])

    var all: Set<Int> { positions.withLock { $0 } }
    func contains(_ position: Int) -> Bool { positions.withLock { $0.contains(position) } }
    func insert(_ position: Int) { positions.withLock { _ = $0.insert(position) } }
  }

  /// - Parameter positions: of pairs that have `storedParts`.
  /// - Returns: those of them in which some byte differs.
  package func run(_ positions: [Int]) throws(Failure) -> Set<Int> {
    let parts = parts(of: positions)
    // Of both sides.
    let total = parts.reduce(0) { $0.addingSaturated($1.byteCount).addingSaturated($1.byteCount) }
    let progress = Progress("comparing", total: total, style: style)
    defer { progress.finish() }
    let found = Found()
    let stream = OrderedStream<RangeCursor, PairBuffer>(jobs: jobs) { PairBuffer(capacity: Self.pieceBytes) }
    try stream.run(RangeCursor(parts.map(\.byteCount), limit: Self.pieceBytes)) { piece, buffer throws(Failure) in
      try compare(parts[piece.item], piece.range, buffer, found)
    } drain: { piece, buffer throws(Failure) in
      progress.advance(by: 2 * piece.range.count)
    }
    return found.all
  }

  private func parts(of positions: [Int]) -> [Part] {
    var parts: [Part] = []
    for position in positions {
      for (left, right) in pair.storedParts(position) ?? [] {
        let count = pair.a.checkpoint.tensors[left].byteCount
        parts.append(Part(position: position, a: left, b: right, byteCount: count))
      }
    }
    return parts
  }

  private func compare(_ part: Part, _ range: Range<Int>, _ buffer: PairBuffer, _ found: Found) throws(Failure) {
    // One difference settles it; the values are read again to measure it.
    if found.contains(part.position) { return }
    let (memoryA, memoryB) = (buffer.a, buffer.b)
    var a = memoryA.part(0..<range.count)
    var b = memoryB.part(0..<range.count)
    try pair.a.readStored(part.a, at: range.lowerBound, into: &a)
    try pair.b.readStored(part.b, at: range.lowerBound, into: &b)
    if !a.bytes.hasSameBytes(as: b.bytes) {
      found.insert(part.position)
    }
  }
}
