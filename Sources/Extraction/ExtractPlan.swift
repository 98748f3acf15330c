import Adapters
import Architectures
import Bytes
import Checkpoints
import Comparison
import Patterns
import Quantization
import Tensors

/// Which tensors an adapter could tell the difference of, from headers alone.
struct ExtractPlan: Sendable {
  /// The weight of a linear layer.
  struct Module: Sendable {
    /// The position among the pairs.
    var position: Int
    /// The module's path as PEFT names it.
    var path: String
    var inputs: Int
    var outputs: Int
    /// The pair's tensors lie `[inputs, outputs]`.
    var isTransposed: Bool
  }

  /// The modules in the order of the base.
  private(set) var modules: [Module] = []
  /// Linear weights that `--target` leaves out, by position.
  private(set) var excluded: [Int] = []
  /// Positions of all other pairs.
  private(set) var others: [Int] = []
  /// Positions of pairs of embeddings that have different lengths in the two models.
  private(set) var resized: Set<Int> = []
  private(set) var warnings: [Warning] = []

  /// Every linear layer of the model, whether it is to have factors or not.
  private(set) var linearPaths: Set<String> = []
  private let pair: ExtractPair

  /// - Parameters:
  ///   - targets: globs of module paths; empty for all.
  ///   - savesRest: whether embeddings may have changed their number of rows.
  /// - Throws: `malformed` for weights of different shapes or dtypes, `missing` when the globs match no module,
  ///   `usage` for a rank that no weight can have.
  init(_ pair: ExtractPair, rank: Int, targets: [Glob], savesRest: Bool) throws(Failure) {
    self.pair = pair
    var used: Set<Int> = []
    for position in pair.tensors.common.indices {
      guard let path = modulePath(position) else {
        try addOther(position, savesRest: savesRest)
        continue
      }
      linearPaths.insert(path)
      let (base, tuned) = pair.tensors.infos(position)
      try checkLinear(position, base, tuned)
      let stored = pair.base.logical.info(pair.base.logical.items[pair.tensors.common[position].a]).name.string
      let own = stored.hasSuffix(".weight") ? String(stored.dropLast(".weight".count)) : stored
      let matching = targets.indices.filter { targets[$0].matches(path) || targets[$0].matches(own) }
      used.formUnion(matching)
      if !targets.isEmpty, matching.isEmpty {
        excluded.append(position)
        continue
      }
      let isTransposed = isConv1D(position) && !isPacked(position)
      modules.append(
        Module(
          position: position, path: path, inputs: base.shape[isTransposed ? 0 : 1],
          outputs: base.shape[isTransposed ? 1 : 0], isTransposed: isTransposed))
    }
    for index in targets.indices where !used.contains(index) {
      warnings.append("--target '\(targets[index].text)' matches no linear layer")
    }
    guard let largest = modules.map({ min($0.inputs, $0.outputs) }).max() else {
      throw Failure(
        targets.isEmpty ? .malformed : .missing,
        targets.isEmpty ? "has no linear layer" : "has no linear layer that --target matches",
        file: pair.base.checkpoint.path)
    }
    guard rank <= largest else {
      throw Failure(.usage, "option '--rank': \(rank) is more than \(largest), the highest that a weight here can have")
    }
  }

  /// Whether the layer is a `Conv1D`, however its weight lies here.
  func isConv1D(_ position: Int) -> Bool {
    pair.disposition(position) == .quantizeTransposed || pair.place(position).isConv1D
  }

  private func isPacked(_ position: Int) -> Bool {
    let (a, b) = pair.tensors.common[position]
    return pair.base.logical.isPacked(a) || pair.tuned.logical.isPacked(b)
  }

  /// The module whose weight a tensor is, when that is a linear layer and not the output embedding.
  private func modulePath(_ position: Int) -> String? {
    guard let path = pair.weights.modules[pair.tensors.common[position].a] else { return nil }
    switch pair.disposition(position) {
    case .quantize, .quantizeTransposed: return path
    case .keep(.lastParameter), .keep(.fp32Module), .keep(.collision), .keep(.userKept): return path
    case .keep: return nil
    }
  }

  private func checkLinear(_ position: Int, _ base: TensorInfo, _ tuned: TensorInfo) throws(Failure) {
    try checkShape(base, tuned)
    guard isPacked(position) ? tuned.type.isFloat : base.type == tuned.type else {
      throw Failure(
        .malformed,
        "is \(tuned.type.name), \(base.type.name) in '\(pair.tensors.a.path)': bring both to one dtype first "
          + "(nibble convert --dtype)", file: pair.tensors.b.path, tensor: tuned.name.string)
    }
  }

  private func checkShape(_ base: TensorInfo, _ tuned: TensorInfo) throws(Failure) {
    guard base.shape == tuned.shape else {
      throw Failure(
        .malformed, "has shape \(tuned.shape), \(base.shape) in '\(pair.tensors.a.path)'", file: pair.tensors.b.path,
        tensor: tuned.name.string)
    }
  }

  private mutating func addOther(_ position: Int, savesRest: Bool) throws(Failure) {
    let parameter = pair.place(position).parameter
    // The input embedding speaks for both.
    if pair.isTied, parameter == pair.names.outputEmbedding + ".weight" { return }
    let (base, tuned) = pair.tensors.infos(position)
    let isVocabulary = EmbeddingNames.isInput(parameter) || parameter == pair.names.outputEmbedding + ".weight"
    let isResized = base.shape.count == 2 && tuned.shape.count == 2 && base.shape[1] == tuned.shape[1]
    if base.shape != tuned.shape, isVocabulary, isResized {
      guard savesRest else {
        throw Failure(
          .malformed,
          "has \(tuned.shape[0]) rows, \(base.shape[0]) in '\(pair.tensors.a.path)': a vocabulary of another size "
            + "goes into an adapter with --save-rest", file: pair.tensors.b.path, tensor: tuned.name.string)
      }
      resized.insert(position)
    } else {
      try checkShape(base, tuned)
    }
    others.append(position)
  }
}
