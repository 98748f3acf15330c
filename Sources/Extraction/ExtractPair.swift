import Architectures
import Bytes
import Checkpoints
import Comparison
import Tensors

/// The model that was tuned and what became of it, side by side: tensors are matched by what the model class calls
/// them, since one of the two may be stored with the base model's prefix and the other without.
struct ExtractPair: Sendable {
  let base: StoredModel
  let tuned: StoredModel
  /// A is the base, B the tuned model.
  let tensors: CheckpointPair
  /// The parameter names of the base.
  let names: ParameterNames
  let weights: WeightPlan
  /// Whether input and output embedding are one tensor in both models.
  let isTied: Bool
  private let contentWarnings: [Warning]

  /// Buffers that older releases of transformers stored and all of them ignore when they load.
  private static let ignored = [".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias", ".attention.masked_bias"]

  /// - Throws: `unsupported` when one of the two is quantized otherwise than in 4 bits, `malformed` when one has
  ///   tensors that the other has not.
  init(_ basePath: String, _ tunedPath: String) throws(Failure) {
    let a = try ComparedCheckpoint.original(ComparedCheckpoint.open(basePath))
    let b = try ComparedCheckpoint.original(ComparedCheckpoint.open(tunedPath))
    var contentWarnings: [Warning] = []
    for model in [a.model, b.model] {
      try model.refuseAdapter("an adapter is made from the weights before and after training")
      contentWarnings += try model.checkContents().warnings()
      guard case .other(let method) = model.quantizationMethod else { continue }
      throw Failure(
        .unsupported, "is quantized (\(method)); weights are compared in 16 or 32 bits, or in 4 (bitsandbytes)",
        file: model.checkpoint.path)
    }
    self.contentWarnings = contentWarnings
    base = a.model
    tuned = b.model
    names = a.model.names
    let tunedNames = b.model.names
    isTied = names.tiesEmbeddings && tunedNames.tiesEmbeddings && names.hasOutputEmbedding
    weights = a.model.weightPlan
    var keysA = Self.keys(names)
    var keysB = Self.keys(tunedNames)
    if Set(keysA).count != keysA.count || Set(keysB).count != keysB.count {
      keysA = a.values.tensors.map(\.name)
      keysB = b.values.tensors.map(\.name)
    }
    tensors = try CheckpointPair((a, path: basePath, keys: keysA), (b, path: tunedPath, keys: keysB))
    try check(tensors.onlyInA, in: basePath, notIn: tunedPath)
    try check(tensors.onlyInB, in: tunedPath, notIn: basePath)
  }

  /// Experts that are stored one by one are parts of one parameter.
  private static func keys(_ names: ParameterNames) -> [TensorName] {
    names.places.map { place in
      let part = place.part.map { " expert \($0.expert) part \($0.index)" } ?? ""
      return TensorName(place.parameter + part)
    }
  }

  private func check(_ only: [TensorName], in path: String, notIn other: String) throws(Failure) {
    let real = only.filter { !isIgnored($0) }
    guard let first = real.first else { return }
    if names.tiesEmbeddings, !isTied, first.string == names.outputEmbedding + ".weight" {
      throw Failure(
        .unsupported,
        "is the input embedding's own in '\(other)' (tie_word_embeddings): an output embedding that tuning "
          + "set apart cannot be extracted", file: path, tensor: first.string)
    }
    let more = real.count > 1 ? " nor \(StoredModel.list(real.dropFirst().map(\.string)))" : ""
    throw Failure(
      .malformed, "is not in '\(other)'\(more); both models must have the same tensors", file: path,
      tensor: first.string)
  }

  /// A second copy of a tied embedding, or a buffer.
  private func isIgnored(_ name: TensorName) -> Bool {
    let head = names.outputEmbedding + ".weight"
    if isTied, name.string == head || name.hasSuffix("." + head) { return true }
    return Self.ignored.contains { name.hasSuffix($0) }
  }

  /// Warnings about tensors that a loader ignores and the adapter leaves out.
  var warnings: [Warning] {
    let left = (tensors.onlyInA + tensors.onlyInB).filter { name in Self.ignored.contains { name.hasSuffix($0) } }
    let ignored: [Warning] =
      left.isEmpty ? [] : ["buffers that loaders ignore are left out: \(names: left.map(\.string))"]
    return Warning.grouped(tensors.warnings + contentWarnings + ignored)
  }

  /// The base's name for the tensor of a pair, in the model.
  func place(_ position: Int) -> ParameterPlace { names.places[tensors.common[position].a] }

  func disposition(_ position: Int) -> Disposition { weights.dispositions[tensors.common[position].a] }
}
