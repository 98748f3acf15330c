import Architectures
public import Bytes
import Quantization
public import Tensors

/// `nibble diff`: which tensors of two checkpoints differ, and by how much.
///
/// Tensors are compared as a user thinks of them: a 4-bit weight is one tensor, and its values are those it
/// stands for in the dtype that its quant_state names.
public struct Diff: Sendable {
  /// A glob of the names to compare; nil for all.
  public var tensor: String?
  public var jobs = processorCount()
  public var progress = Progress.Style.automatic

  public init() {}

  /// A tensor that is in both checkpoints and not the same. In a pair, A comes first.
  public struct Change: Sendable {
    public var name: TensorName
    /// As safetensors names them, or `NF4`, `FP4`.
    public var types: (a: String, b: String)
    /// A weight of `Conv1D` that lies differently in the two is told as the 4-bit checkpoint has it.
    public var shapes: (a: [Int], b: [Int])
    /// Nil when the shapes differ.
    public var elements: Int?
    /// Elements whose values are not equal; nil when shapes or types cannot be compared.
    public var differing: Int?
    /// The largest |B - A|; nil when there is no such number, as beside a NaN or in a type without numbers.
    public var largest: Double?
    /// ‖B - A‖ / ‖A‖, infinite when only A is all zeros; nil as `largest` is.
    public var relative: Double?
  }

  public struct Result: Sendable {
    /// Sorted by name.
    public var onlyInA: [TensorName] = []
    public var onlyInB: [TensorName] = []
    /// The largest relative change first, those that cannot be measured before all others; then by name.
    public var changed: [Change] = []
    /// Tensors of the same dtype, shape and values.
    public var unchanged = 0
    public var warnings: [String] = []

    public var isEqual: Bool { onlyInA.isEmpty && onlyInB.isEmpty && changed.isEmpty }
  }

  /// - Throws: what opening or reading a checkpoint throws, its file named together with the checkpoint;
  ///   `missing` when `tensor` matches no name.
  public func callAsFunction(_ a: String, _ b: String) throws(Failure) -> Result {
    let pair = try CheckpointPair(a, b, matching: tensor.map(Glob.init))
    var result = Result()
    result.warnings = pair.warnings
    result.onlyInA = pair.onlyInA
    result.onlyInB = pair.onlyInB
    let sameShape = pair.common.indices.filter { position in
      let (a, b) = pair.infos(position)
      return a.shape == b.shape
    }
    let stored = sameShape.filter { pair.storedParts($0) != nil }
    let differing = try ByteComparison(pair: pair, jobs: jobs, style: progress).run(stored)
    let equal = Set(stored).subtracting(differing)
    let measured = sameShape.filter { !equal.contains($0) }
    var differences: [Int: ValueDifference] = [:]
    for (position, found) in zip(measured, try ValueComparison(pair: pair, jobs: jobs, style: progress).run(measured)) {
      differences[position] = found
    }
    try pair.a.checkUnchanged()
    try pair.b.checkUnchanged()
    for position in pair.common.indices where !equal.contains(position) {
      if let change = change(position, pair, differences[position]) { result.changed.append(change) }
    }
    result.unchanged = pair.common.count - result.changed.count
    result.changed.sort { left, right in
      let (x, y) = (left.relative ?? .infinity, right.relative ?? .infinity)
      return x == y ? left.name < right.name : x > y
    }
    return result
  }

  /// Nil when the two are the same after all, such as zeros of different signs.
  private func change(_ position: Int, _ pair: CheckpointPair, _ difference: ValueDifference?) -> Change? {
    let (a, b) = pair.infos(position)
    let types = pair.typeNames(position)
    if let difference, difference.differing == 0, types.a == types.b { return nil }
    return Change(
      name: a.name, types: types, shapes: (a.shape, b.shape), elements: a.shape == b.shape ? a.elementCount : nil,
      differing: difference?.differing, largest: difference?.largestDistance, relative: difference?.relative)
  }
}
