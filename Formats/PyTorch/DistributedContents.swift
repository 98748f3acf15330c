import Bytes

/// Which of the tensors of a distributed checkpoint are the model's, and what their names have in front of the model's
/// own.
///
/// Who saves dictionaries in a dictionary, such as `{"model": …, "optimizer": …}`, gets names of joined keys. Where the
/// keys are told, nothing is guessed from names.
struct DistributedContents {
  private typealias Step = DistributedMetadata.Step

  let tensors: [DistributedMetadata.Tensor]
  /// In front of every name.
  let prefix: String
  /// Tensors of an optimizer.
  let stateCount: Int
  /// Names of tensors in other dictionaries than the model's.
  let beside: [String]
  /// Names of what is no tensor, without that of an optimizer.
  let others: [String]

  /// Keys of dictionaries under which a model stands: what a file of `torch.save` has them under, and what PyTorch's own
  /// examples have.
  private static let words: Set<String> = Set(PyTorchContents.roots).union(["app"])

  /// - Throws: `malformed` when two dictionaries may be the model's.
  init(_ metadata: DistributedMetadata) throws(Failure) {
    let states = Self.states(metadata)
    func isState(_ name: String, _ path: [Step]?) -> Bool {
      guard let path else { return Self.isState(name) }
      if name.contains(".exp_avg") || path.dropLast().contains(where: Self.isOptimizer) { return true }
      return path.indices.contains {
        Self.text(path[$0]).map(Self.isOfState) == true && states.contains(Array(path[..<$0]))
      }
    }
    let wanted = metadata.tensors.filter { !isState($0.name, $0.path) }
    stateCount = metadata.tensors.count - wanted.count
    others = metadata.others.filter { !isState($0.name, $0.path) }.map(\.name)
    guard wanted.allSatisfy({ $0.path != nil }) else {
      tensors = wanted
      prefix = Self.commonPrefix(wanted.map(\.name))
      beside = []
      return
    }
    // The dictionaries under known words, those of a tensor at the root being none.
    var roots: [[String]: Int] = [:]
    for tensor in wanted { roots[Self.root(tensor), default: 0] += 1 }
    let named = roots.keys.filter { !$0.isEmpty }.sorted { $0.lexicographicallyPrecedes($1) }
    let isMatrixElsewhere = wanted.contains { Self.root($0).isEmpty && $0.path?.count == 1 && $0.shape.count > 1 }
    guard let root = named.first else {
      (tensors, prefix, beside) = (wanted, "", [])
      return
    }
    guard named.count == 1, !isMatrixElsewhere else {
      let places = named.prefix(2).map { "under '\($0.joined(separator: "."))'" }
      throw Failure(
        .malformed,
        "has tensors \((isMatrixElsewhere ? ["at its root"] : []) + places): which are the model is not clear, save the "
          + "state_dict alone")
    }
    prefix = root.map { $0 + "." }.joined()
    tensors = wanted.filter { Self.root($0) == root }
    beside = wanted.filter { Self.root($0) != root }.map(\.name)
  }

  // MARK: - Where the keys are told

  private static func text(_ step: Step) -> String? { if case .key(let text) = step { text } else { nil } }

  private static func isOptimizer(_ step: Step) -> Bool { text(step)?.hasPrefix("optim") == true }

  /// A state_dict of an optimizer has these two, or flattened names that begin with them.
  private static func isOfState(_ key: String) -> Bool { key == "state" || key.hasPrefix("state.") }
  private static func isOfGroups(_ key: String) -> Bool { key == "param_groups" || key.hasPrefix("param_groups.") }

  /// Paths of the dictionaries that are an optimizer's.
  private static func states(_ metadata: DistributedMetadata) -> Set<[Step]> {
    var found: Set<[Step]> = []
    for path in metadata.others.compactMap(\.path) + metadata.tensors.compactMap(\.path) {
      guard let place = path.firstIndex(where: { text($0).map(isOfGroups) == true }) else { continue }
      found.insert(Array(path[..<place]))
    }
    return found
  }

  /// The keys in front of a tensor's own that are known words.
  private static func root(_ tensor: DistributedMetadata.Tensor) -> [String] {
    var root: [String] = []
    for step in (tensor.path ?? []).dropLast() {
      guard let word = text(step), words.contains(word) else { break }
      root.append(word)
    }
    return tensor.name.hasPrefix(root.map { $0 + "." }.joined()) ? root : []
  }

  // MARK: - Where they are not

  /// Names of what an optimizer keeps.
  private static func isState(_ name: String) -> Bool {
    ["optimizer.", "optim.", "state."].contains { name.hasPrefix($0) } || name.contains(".exp_avg")
  }

  /// accelerate saves `{"model": state_dict}`: a word in front of every name, where they begin with `model.` themselves
  /// behind it or with another module's.
  private static func commonPrefix(_ names: [String]) -> String {
    let word = "model."
    guard !names.isEmpty, names.allSatisfy({ $0.hasPrefix(word) }) else { return "" }
    // `model.layers.0…` of a base model that is saved by itself has no head and no word more.
    let rest = names.map { $0.dropFirst(word.count) }
    let isWhole = rest.contains { $0.hasPrefix(word) } || rest.contains { $0.hasPrefix("lm_head") }
    return isWhole || rest.allSatisfy { $0.hasPrefix("transformer.") } ? word : ""
  }
}
