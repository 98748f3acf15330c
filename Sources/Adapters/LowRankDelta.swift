import Bytes
import Quantization
import Synchronization

/// The delta that one group of factors adds to a tensor.
struct LowRankDelta: Sendable {
  let factors: FactorSource
  /// Multiplies the product; 1 when the factors have been combined.
  let scale: Float
  let place: Place
  let magnitude: Magnitude?

  /// Where the tensor's rows lie among the rows of the product, or of its transpose.
  struct Place: Sendable, Equatable {
    /// Rows are inputs: `Conv1D`, embeddings, some stacked experts.
    var isTransposed = false
    var firstExpert = 0
    /// Rows of the tensor that belong to one expert.
    var rowsPerExpert: Int
    /// First row of the product: experts that are stored one by one may be parts of one parameter.
    var rowOffset = 0
  }

  /// The magnitudes of DoRA: the length that each output is given.
  struct Magnitude: Sendable {
    let adapter: Adapter
    let tensor: Int
    /// How much of the change is applied.
    let weight: Float
  }

  /// Writes the product's rows that belong to `rows` of the tensor, or adds them.
  func multiply(
    _ factors: LowRankFactors, rows: Range<Int>, rowLength: Int, adding: Bool,
    into delta: inout MutableSpan<Float>
  ) {
    var row = rows.lowerBound
    while row < rows.upperBound {
      let inExpert = row % place.rowsPerExpert
      let count = min(rows.upperBound - row, place.rowsPerExpert - inExpert)
      let first = place.rowOffset + inExpert
      let start = (row - rows.lowerBound) * rowLength
      var part = delta.part(start..<start + count * rowLength)
      factors.multiply(
        expert: place.firstExpert + row / place.rowsPerExpert, rows: first..<first + count,
        isTransposed: place.isTransposed, scale: scale, adding: adding,
        into: &part)
      row += count
    }
  }
}

/// Where factors come from; the same source may serve many tensors.
final class FactorSource: Sendable {
  /// Differs from that of every other source of the run.
  let id: Int
  let terms: [FactorTerm]
  let combination: FactorCombination?

  init(id: Int, terms: [FactorTerm], combination: FactorCombination?) {
    self.id = id
    self.terms = terms
    self.combination = combination
  }

  func load() throws(Failure) -> LowRankFactors {
    guard let term = terms.first else { throw Failure(.internal, "factors of no adapter") }
    let (a, b) = if let combination { try combination.combined(terms, id: id) } else { try term.stored() }
    return LowRankFactors(term.shape, a: a, b: term.grouped(b))
  }
}

/// Factors in use: those of the tensors under way are loaded once, for all workers.
final class FactorCache: Sendable {
  private struct State {
    /// The one used last is at the end.
    var entries: [(id: Int, factors: LowRankFactors)] = []
    var byteCount = 0
  }

  private let state = Mutex(State())
  /// The most bytes of factors that stay loaded, unless a single entry has more.
  private static let byteLimit = 48 << 20
  /// The most entries kept: a longer search would take more time than loading the smallest again.
  private static let countLimit = 1024

  /// Loading under the lock: whoever else asks meanwhile mostly asks for the same.
  func factors(_ source: FactorSource) throws(Failure) -> LowRankFactors {
    try state.withLock { (state) throws(Failure) in
      if let at = state.entries.lastIndex(where: { $0.id == source.id }) {
        let entry = state.entries.remove(at: at)
        state.entries.append(entry)
        return entry.factors
      }
      let loaded = try source.load()
      state.entries.append((source.id, loaded))
      state.byteCount += loaded.byteCount
      while state.byteCount > Self.byteLimit && state.entries.count > 1 || state.entries.count > Self.countLimit {
        state.byteCount -= state.entries.removeFirst().factors.byteCount
      }
      return loaded
    }
  }
}

/// How much each tensor was changed, piece by piece.
final class ChangeMeter: Sendable {
  private let pieces = Mutex<[Int: [(start: Int, sums: ChangeSums)]]>([:])

  func add(_ sums: ChangeSums, tensor: Int, at start: Int) {
    pieces.withLock { $0[tensor, default: []].append((start, sums)) }
  }

  /// ‖W′ − W‖ / ‖W‖ (Frobenius), before rounding; independent of who computed which piece. nil when nothing
  /// was measured; infinite when a zero tensor was changed.
  func relativeChange(of tensor: Int) -> Double? {
    let found = pieces.withLock { $0[tensor] ?? [] }.sorted { $0.start < $1.start }
    if found.isEmpty { return nil }
    var total = ChangeSums()
    for piece in found { total.add(piece.sums) }
    return total.changes == 0 ? 0 : (total.changes / total.values).squareRoot()
  }
}
