import Bytes
import Comparison
import Console
import Quantization

/// Which tensors of the two models differ: from their bytes where both are stored alike, else from their values.
struct ExtractChanges: Sendable {
  /// A tensor that differs and has no factors.
  struct Other: Sendable {
    /// The position among the pairs.
    var position: Int
    /// ‖tuned - base‖ / ‖base‖; nil where there is no such number.
    var relative: Double?
  }

  /// Positions in the plan's modules, in order.
  private(set) var modules: [Int] = []
  /// Linear weights that `--target` leaves out, and other tensors.
  private(set) var excluded: [Other] = []
  private(set) var others: [Other] = []

  /// Reads both models once; of linear weights stored alike no more than up to the first difference.
  init(_ pair: ExtractPair, _ plan: ExtractPlan, jobs: Int, style: Progress.Style) throws(Failure) {
    let linear = plan.modules.map(\.position)
    let rest = plan.excluded + plan.others.filter { !plan.resized.contains($0) }
    let all = linear + rest
    let storedAlike = all.filter { pair.tensors.storedParts($0) != nil }
    let differing = try ByteComparison(pair: pair.tensors, jobs: jobs, style: style).run(storedAlike)
    let equal = Set(storedAlike).subtracting(differing)
    // The size of a change that gets factors is measured when they are computed.
    let known = Set(linear).intersection(differing)
    let measured = all.filter { !equal.contains($0) && !known.contains($0) }
    let found = try ValueComparison(pair: pair.tensors, jobs: jobs, style: style).run(measured)
    var differences: [Int: ValueDifference] = [:]
    var changed = known
    for (position, difference) in zip(measured, found) {
      if difference?.differing == 0 { continue }
      changed.insert(position)
      differences[position] = difference
    }
    func changes(_ positions: [Int]) -> [Other] {
      positions.filter { changed.contains($0) || plan.resized.contains($0) }.map { position in
        Other(position: position, relative: differences[position]?.relative.flatMap { $0.isFinite ? $0 : nil })
      }
    }
    modules = plan.modules.indices.filter { changed.contains(plan.modules[$0].position) }
    excluded = changes(plan.excluded)
    others = changes(plan.others)
  }
}
