/// Tensors that families have in common.
extension [TensorRule] {
  private static let layer = "model.layers.{layer}."

  /// The embeddings and the last norm of models whose modules are called as Llama's.
  static func embeddings(
    norm: TensorRule.Transform = .none, head: TensorRule.Presence? = .unlessTied, normBias: Bool = false
  ) -> [TensorRule] {
    [TensorRule("model.embed_tokens.weight", "token_embd.weight", [.vocabulary, .hidden])]
      + (normBias
        ? .layerNorm("model.norm", "output_norm") : .norm("model.norm", "output_norm", .hidden, norm))
      + (head.map { [TensorRule("lm_head.weight", "output.weight", [.vocabulary, .hidden], $0)] } ?? [])
  }

  /// Queries, keys, values and the output projection.
  static func attention(
    permuted: Bool = false, bias: TensorRule.Presence? = nil, outputBias: TensorRule.Presence? = nil
  ) -> [TensorRule] {
    let attention = layer + "self_attn."
    return .linear(
      attention + "q_proj", "blk.{layer}.attn_q", [.queries, .hidden], permuted ? .permuteQueries : .none, bias: bias)
      + .linear(
        attention + "k_proj", "blk.{layer}.attn_k", [.keys, .hidden], permuted ? .permuteKeys : .none, bias: bias)
      + .linear(attention + "v_proj", "blk.{layer}.attn_v", [.keys, .hidden], bias: bias)
      + .linear(attention + "o_proj", "blk.{layer}.attn_output", [.hidden, .queries], bias: outputBias)
  }

  /// Norms of each head's queries and keys.
  static func headNorms(
    queries: Dimension = .headLength, keys: Dimension = .headLength, _ transform: TensorRule.Transform = .none
  ) -> [TensorRule] {
    .norm(layer + "self_attn.q_norm", "blk.{layer}.attn_q_norm", queries, transform)
      + .norm(layer + "self_attn.k_norm", "blk.{layer}.attn_k_norm", keys, transform)
  }

  /// Before attention and before the MLP.
  static func layerNorms(_ transform: TensorRule.Transform = .none) -> [TensorRule] {
    .norm(layer + "input_layernorm", "blk.{layer}.attn_norm", .hidden, transform)
      + .norm(layer + "post_attention_layernorm", "blk.{layer}.ffn_norm", .hidden, transform)
  }

  /// Before and after attention and the MLP, as Gemma 2 has them.
  static func sandwichNorms(_ transform: TensorRule.Transform) -> [TensorRule] {
    .norm(layer + "input_layernorm", "blk.{layer}.attn_norm", .hidden, transform)
      + .norm(layer + "post_attention_layernorm", "blk.{layer}.post_attention_norm", .hidden, transform)
      + .norm(layer + "pre_feedforward_layernorm", "blk.{layer}.ffn_norm", .hidden, transform)
      + .norm(layer + "post_feedforward_layernorm", "blk.{layer}.post_ffw_norm", .hidden, transform)
  }

  static func gatedMLP(bias: TensorRule.Presence? = nil) -> [TensorRule] {
    .linear(layer + "mlp.gate_proj", "blk.{layer}.ffn_gate", [.feedForward, .hidden], bias: bias)
      + .linear(layer + "mlp.up_proj", "blk.{layer}.ffn_up", [.feedForward, .hidden], bias: bias)
      + .linear(layer + "mlp.down_proj", "blk.{layer}.ffn_down", [.hidden, .feedForward], bias: bias)
  }

  /// Experts as Qwen stores them: one by one, or all of a layer in two tensors.
  static var qwenExperts: [TensorRule] {
    let experts = layer + "mlp.experts."
    return [
      TensorRule(
        layer + "mlp.gate.weight", "blk.{layer}.ffn_gate_inp.weight", [.experts, .hidden], isAlwaysF32: true),
      TensorRule(
        experts + "{expert}.down_proj.weight", "blk.{layer}.ffn_down_exps.weight", [.hidden, .expertFeedForward]),
      TensorRule(
        experts + "{expert}.gate_proj.weight", "blk.{layer}.ffn_gate_exps.weight", [.expertFeedForward, .hidden]),
      TensorRule(
        experts + "{expert}.up_proj.weight", "blk.{layer}.ffn_up_exps.weight", [.expertFeedForward, .hidden]),
      TensorRule(
        experts + "down_proj", "blk.{layer}.ffn_down_exps.weight", [.experts, .hidden, .expertFeedForward],
        .alternative),
      TensorRule(
        experts + "gate_up_proj", "blk.{layer}.ffn_gate_exps.weight",
        [.experts, .twiceExpertFeedForward, .hidden], .alternative, .half(0)),
      TensorRule(
        experts + "gate_up_proj", "blk.{layer}.ffn_up_exps.weight",
        [.experts, .twiceExpertFeedForward, .hidden], .alternative, .half(1)),
    ]
  }
}

extension Family {
  static let inputBiases = ["blk.{layer}.attn_q.bias", "blk.{layer}.attn_k.bias", "blk.{layer}.attn_v.bias"]
  static let attentionBiases = inputBiases + ["blk.{layer}.attn_output.bias"]
  static let gatedMLPBiases = ["blk.{layer}.ffn_gate.bias", "blk.{layer}.ffn_up.bias", "blk.{layer}.ffn_down.bias"]
}
