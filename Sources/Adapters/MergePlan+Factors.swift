package import Bytes
import Tensors

/// An adapter's update of one tensor of a model as the factors that were trained: `scale · B · A`.
package struct TensorFactors: Sendable {
  package enum Values: Sendable {
    /// A tensor of the adapter, by position.
    case stored(Int)
    case computed([Float])
  }

  /// Position in the base's tensors.
  package var tensor: Int
  /// The number of matrices in a stack; nil for a single matrix.
  package var experts: Int?
  package var rank: Int
  package var inputs: Int
  package var outputs: Int
  /// The values of A, `[experts, rank, inputs]`.
  package var a: Values
  /// The values of B, `[experts, outputs, rank]`.
  package var b: Values
  package var scale: Double
  /// Whether the tensor is `[inputs, outputs]`.
  package var isTransposed: Bool
}

extension MergePlan {
  /// The adapter's low-rank updates, one for each tensor that it changes. Copies of the base's own values, which PEFT
  /// saves beside the factors of embeddings, are left out.
  ///
  /// - Throws: `unsupported` when it does more to the model than low-rank updates of matrices.
  package func factors(of adapter: Adapter) throws(Failure) -> [TensorFactors] {
    if replicatedLayers != nil { throw Self.refusal("repeats layers of the base (layer_replication)", adapter) }
    if adapter.configuration.usesDoRA { throw Self.refusal("is a DoRA adapter (use_dora)", adapter) }
    var result: [TensorFactors] = []
    for item in source.items where item.isChanged {
      guard let tensor = try base(of: item, adapter) else { continue }
      if let bias = item.vectors.first { throw Self.refusal("is a bias (lora_bias)", adapter, bias.tensor) }
      if let rows = item.rows.first {
        throw Self.refusal("has rows of an embedding (trainable_token_indices)", adapter, rows.tensor)
      }
      guard let delta = item.deltas.first, let term = delta.factors.terms.first else { continue }
      if item.deltas.count > 1 { throw Self.refusal("is one of several updates of one tensor", adapter, term.module.a) }
      result.append(try Self.factors(delta, term, item, tensor))
    }
    return result
  }

  /// The position in the base of what is updated, or stands in the adapter as a whole with the base's own numbers.
  private func base(of item: MergedTensor, _ adapter: Adapter) throws(Failure) -> Int? {
    guard case .adapter(_, let own) = item.origin else { return item.baseIndex }
    guard let replaced = item.replaced else {
      throw Self.refusal("is one of the adapter's whole tensors", adapter, own)
    }
    if try adapter.hasSameNumbers(own, as: replaced, of: source.base) { return replaced }
    throw Self.refusal("is one of the adapter's whole tensors and differs from the base's", adapter, own)
  }

  private static func refusal(_ what: String, _ adapter: Adapter, _ tensor: Int? = nil) -> Failure {
    Failure(
      .unsupported, "\(what), which an adapter in GGUF cannot hold; merge it into its base instead ('nibble merge')",
      file: tensor == nil ? adapter.path : adapter.weightsPath, tensor: tensor.map { adapter.tensors[$0].name.string })
  }

  private static func factors(
    _ delta: LowRankDelta, _ term: FactorTerm, _ item: MergedTensor, _ tensor: Int
  ) throws(Failure) -> TensorFactors {
    let (shape, place) = (term.shape, delta.place)
    let outputs = place.isTransposed ? shape.outputs : place.rowsPerExpert
    var result = TensorFactors(
      tensor: tensor, experts: item.isStack ? item.info.shape[0] : nil, rank: shape.rank, inputs: shape.inputs,
      outputs: outputs, a: .computed([]), b: .computed([]), scale: term.scale, isTransposed: place.isTransposed)
    let configuration = term.adapter.configuration
    if shape.experts == 1, !item.isStack, outputs == shape.outputs, configuration.groupSize == nil,
      configuration.blocks == nil, let a = term.module.a, let b = term.module.b
    {
      (result.a, result.b) = (.stored(a), .stored(b))
      return result
    }
    let factors = try delta.factors.load()
    var a: [Float] = []
    var b: [Float] = []
    for expert in place.firstExpert..<place.firstExpert + (result.experts ?? 1) {
      a += factors.a[expert * shape.rank * shape.inputs..<(expert + 1) * shape.rank * shape.inputs]
      let first = expert * shape.outputs + place.rowOffset
      b += factors.b[first * shape.rank..<(first + outputs) * shape.rank]
    }
    (result.a, result.b) = (.computed(a), .computed(b))
    return result
  }
}
