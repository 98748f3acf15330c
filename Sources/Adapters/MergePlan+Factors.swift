package import Bytes
import Tensors

/// What an adapter adds to one tensor of a model, as the factors that it was trained as: `scale · B · A`.
package struct TensorFactors: Sendable {
  package enum Values: Sendable {
    /// A tensor of the adapter, by position.
    case stored(Int)
    case computed([Float])
  }

  /// Position in the base's tensors.
  package var tensor: Int
  /// Of a stack; nil for a matrix.
  package var experts: Int?
  package var rank: Int
  package var inputs: Int
  package var outputs: Int
  /// `[experts, rank, inputs]`.
  package var a: Values
  /// `[experts, outputs, rank]`.
  package var b: Values
  package var scale: Double
  /// Whether the tensor is `[inputs, outputs]`.
  package var isTransposed: Bool
}

extension MergePlan {
  /// What the adapter does, tensor by tensor.
  ///
  /// - Throws: `unsupported` when it does more to the model than low-rank updates of matrices.
  package func factors(of adapter: Adapter) throws(Failure) -> [TensorFactors] {
    if replicatedLayers != nil { throw Self.refusal("layers of the base repeated (layer_replication)") }
    var result: [TensorFactors] = []
    for item in source.items where item.isChanged {
      let name = item.info.name.string
      guard let tensor = item.baseIndex else { throw Self.refusal("whole tensors of its own", name) }
      guard item.vectors.isEmpty else { throw Self.refusal("biases of its own (lora_bias)", name) }
      guard item.rows.isEmpty else { throw Self.refusal("rows of an embedding (trainable_token_indices)", name) }
      guard item.deltas.count == 1, let delta = item.deltas.first, let term = delta.factors.terms.first else {
        throw Self.refusal("several updates of one tensor", name)
      }
      guard delta.magnitude == nil else { throw Self.refusal("lengths of outputs (DoRA)", name) }
      result.append(try Self.factors(delta, term, item, tensor))
    }
    // A tensor that was added to the base comes after the base's own.
    return result
  }

  private static func refusal(_ what: String, _ tensor: String? = nil) -> Failure {
    Failure(
      .unsupported, "the adapter has \(what), which an adapter in GGUF cannot say; merge it into its base instead",
      tensor: tensor)
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
