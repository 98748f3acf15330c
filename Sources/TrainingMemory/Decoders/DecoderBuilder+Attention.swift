import Bytes
import ModelFamilies

extension DecoderBuilder {
  /// The widths of attention.
  struct Heads {
    var count: Int
    /// All queries; all keys; all values of the key-value heads.
    var queries: Int
    var keys: Int
    /// One key-value head stands for several heads.
    var isGrouped: Bool
  }

  /// As `num_attention_heads`, `num_key_value_heads` and `head_dim` have it.
  var heads: Heads {
    // Checked by `ModelSizes`: below 2^31.
    Heads(
      count: sizes.heads, queries: sizes.heads * sizes.headLength, keys: sizes.keyValueHeads * sizes.headLength,
      isGrouped: sizes.heads != sizes.keyValueHeads)
  }

  /// Queries, keys, values, the result; rotary positions; `scaled_dot_product_attention`.
  ///
  /// - Parameters:
  ///   - rotary: values of a head that turn; nil for all, 0 for none.
  ///   - norm: of each head's queries and keys.
  mutating func attention(
    bias: Bool = false, outputBias: Bool = false, window: Int? = nil, rotary: Int? = nil, norm: Norm? = nil
  ) {
    let heads = heads
    projections(bias: bias, outputBias: outputBias)
    if let norm { headNorms(norm) }
    positions(rotary ?? sizes.headLength)
    fused(heads, window: window)
  }

  mutating func projections(bias: Bool, outputBias: Bool, resultIsSaved: Bool = true) {
    let heads = heads
    linear("self_attn.q_proj", heads.queries, hidden, bias: bias, input: "attention")
    linear("self_attn.k_proj", heads.keys, hidden, bias: bias, input: "attention")
    linear("self_attn.v_proj", heads.keys, hidden, bias: bias, input: "attention")
    linear("self_attn.o_proj", hidden, heads.queries, bias: outputBias, input: resultIsSaved ? nil : "result")
  }

  mutating func headNorms(_ kind: Norm) {
    norm(kind, "self_attn.q_norm", width: sizes.headLength, heads: sizes.heads)
    norm(kind, "self_attn.k_norm", width: sizes.headLength, heads: sizes.keyValueHeads)
  }

  /// cos and sin, once for all layers that turn alike.
  ///
  /// - Parameter kind: nil where each layer makes its own.
  mutating func positions(_ length: Int, _ element: SavedTensor.Element = .model, of kind: String? = "rotary") {
    guard length > 0 else { return }
    let tensor = SavedTensor(element, .positions, 2, length)
    save(kind.map(tensor.shared) ?? tensor)
  }

  /// One kernel: q, k, v, the result, and the log-sum-exp of each query's scores; no matrix of scores. With a window
  /// there is a mask, and keys and values are repeated for all query heads.
  ///
  /// - Parameter values: where the values are a part of a wider projection, which is kept whole.
  mutating func fused(_ heads: Heads, window: Int? = nil, values: Int? = nil) {
    save(.model, .tokens, heads.queries)
    save(.model, .tokens, heads.queries)
    save(.float32, .tokens, heads.count)
    let keysAndValues = [heads.keys, values ?? heads.keys]
    for width in keysAndValues {
      save(SavedTensor(.model, .tokens, width).below(heads.isGrouped ? window : nil))
      if heads.isGrouped, let window { save(SavedTensor(.model, .tokens, heads.queries).from(window)) }
    }
    if let window { save(SavedTensor(.model, .pairs, 1).from(window)) }
  }

  /// All scores in float32: what `scaled_dot_product_attention` falls back to where no kernel fits.
  ///
  /// - Parameters:
  ///   - result: values of all heads.
  ///   - single: the only key-value head, which is repeated for all others in a batch.
  ///   - dropout: the mask and what it leaves, besides.
  mutating func scores(_ count: Int, queries: Int, result: Int, single: Int? = nil, dropout: Bool = false) {
    save(.float32, .tokens, queries)
    for width in [queries, result] {
      save(.float32, .tokens, single ?? width)
      if let single { save(SavedTensor(.float32, .tokens, width - single).forBatches) }
    }
    save(.float32, .pairs, dropout ? 3 * count : count)
  }

  static let scoresWarning: Warning =
    "the scores of this model's attention are counted in full, as torch keeps them on the CPU; "
    + "a kernel of a card may need much less"
}
