public import Bytes
public import Console
import Patterns
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
    /// The dtypes as safetensors names them, or `NF4`, `FP4`.
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

  /// A tensor that has the same values in another dtype. In a pair, A comes first.
  public struct SameValues: Sendable {
    public var name: TensorName
    public var types: (a: String, b: String)
  }

  public struct Result: Sendable {
    /// Names of the tensors that only one of the two has, sorted.
    public var onlyInA: [TensorName] = []
    public var onlyInB: [TensorName] = []
    /// The largest relative change first, those that cannot be measured before all others; then by name.
    public var changed: [Change] = []
    /// Tensors of the same shape and values, but not of the same dtype; sorted by name.
    public var sameValues: [SameValues] = []
    /// Tensors of the same dtype, shape and values.
    public var unchanged: [TensorName] = []
    public var warnings: [Warning] = []
    /// How many of `changed` a report tells.
    public var shown = Int.max
    /// Whether a report counts kinds of tensors instead of naming each.
    public var isSummary = false
    /// Whether every name is told of tensors that differ in dtype alone.
    public var isVerbose = false

    public var isEqual: Bool { onlyInA.isEmpty && onlyInB.isEmpty && changed.isEmpty && sameValues.isEmpty }
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
    for position in pair.common.indices {
      let name = pair.infos(position).a.name
      let types = pair.typeNames(position)
      if equal.contains(position) {
        result.unchanged.append(name)
      } else if differences[position]?.differing != 0 {
        result.changed.append(change(position, pair, differences[position]))
      } else if types.a == types.b {
        // Such as zeros of different signs.
        result.unchanged.append(name)
      } else {
        result.sameValues.append(SameValues(name: name, types: types))
      }
    }
    result.sameValues.sort { $0.name < $1.name }
    result.changed.sort { left, right in
      let (x, y) = (left.relative ?? .infinity, right.relative ?? .infinity)
      return x == y ? left.name < right.name : x > y
    }
    return result
  }

  private func change(_ position: Int, _ pair: CheckpointPair, _ difference: ValueDifference?) -> Change {
    let (a, b) = pair.infos(position)
    return Change(
      name: a.name, types: pair.typeNames(position), shapes: (a.shape, b.shape),
      elements: a.shape == b.shape ? a.elementCount : nil,
      differing: difference?.differing, largest: difference?.largestDistance, relative: difference?.relative)
  }
}
