import Bytes
import ModelFamilies

extension TrainingFamily {
  static let gemma = TrainingFamily("Gemma", like: .gemma, lastNorm: .shifted) { decoder, _ throws(Failure) in
    let bias = try decoder.flag("attention_bias")
    decoder.norm(.shifted, "input_layernorm")
    decoder.attention(bias: bias, outputBias: bias)
    decoder.norm(.shifted, "post_attention_layernorm")
    decoder.gatedMLP(width: try decoder.config.size("intermediate_size"))
  }

  private static func softcap(_ decoder: inout DecoderBuilder) throws(Failure) { try decoder.softcap() }

  /// Capped scores have no kernel: attention is written out, its softmax in float32.
  static let gemma2 = TrainingFamily(
    "Gemma 2", like: .gemma2, lastNorm: .shifted, outside: softcap
  ) { decoder, _ throws(Failure) in
    let bias = try decoder.flag("attention_bias")
    let heads = decoder.heads
    decoder.norm(.shifted, "input_layernorm")
    decoder.projections(bias: bias, outputBias: bias, resultIsSaved: false)
    decoder.positions(decoder.sizes.headLength)
    // Queries, keys and values of all heads; scores after tanh, after softmax, and in the model's type.
    decoder.save(SavedTensor(.model, .tokens, 3, heads.queries))
    if try decoder.config.number("attn_logit_softcapping") != nil { decoder.save(.model, .pairs, heads.count) }
    decoder.save(.float32, .pairs, heads.count)
    decoder.save(.model, .pairs, heads.count)
    decoder.norm(.shifted, "post_attention_layernorm")
    decoder.norm(.shifted, "pre_feedforward_layernorm")
    decoder.gatedMLP(width: try decoder.config.size("intermediate_size"))
    decoder.norm(.shifted, "post_feedforward_layernorm")
  }

  /// The text model. Layers with a window turn by frequencies of their own.
  static let gemma3 = TrainingFamily(
    "Gemma 3", like: .gemma3, lastNorm: .shifted, outside: softcap
  ) { decoder, layer throws(Failure) in
    let bias = try decoder.flag("attention_bias")
    let pattern = try decoder.config.optionalSize("sliding_window_pattern") ?? 6
    let window = try decoder.window(otherwise: (layer + 1) % pattern != 0)
    decoder.norm(.shifted, "input_layernorm")
    decoder.projections(bias: bias, outputBias: bias)
    decoder.headNorms(.shifted)
    decoder.positions(decoder.sizes.headLength, of: window == nil ? "rotary" : "rotary of windows")
    decoder.fused(decoder.heads, window: window)
    decoder.norm(.shifted, "post_attention_layernorm")
    decoder.norm(.shifted, "pre_feedforward_layernorm")
    decoder.gatedMLP(width: try decoder.config.size("intermediate_size"))
    decoder.norm(.shifted, "post_feedforward_layernorm")
  }
}

extension DecoderBuilder {
  /// Logits after tanh.
  fileprivate mutating func softcap() throws(Failure) {
    if try config.number("final_logit_softcapping") != nil { save(.model, .tokens, decoder.vocabulary) }
  }
}
