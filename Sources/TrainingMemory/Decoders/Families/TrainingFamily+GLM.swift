import Bytes
import ModelFamilies

extension TrainingFamily {
  private static let glmDefaults: KeyValuePairs<String, Constant> = [
    "num_key_value_heads": 2, "head_dim": 128, "tie_word_embeddings": false, "attention_bias": true,
  ]

  static let glm = TrainingFamily(
    "GLM", modelType: "glm", architecture: "GlmForCausalLM", defaults: glmDefaults,
    layer: { decoder, _ throws(Failure) in
      decoder.norm(.rms, "input_layernorm")
      try decoder.glmAttention()
      decoder.norm(.rms, "post_attention_layernorm")
      try decoder.joinedMLP(try decoder.config.size("intermediate_size"))
    })

  /// Norms also behind attention and MLP.
  static let glm4 = TrainingFamily(
    "GLM-4", modelType: "glm4", architecture: "Glm4ForCausalLM", defaults: glmDefaults,
    layer: { decoder, _ throws(Failure) in
      decoder.norm(.rms, "input_layernorm")
      try decoder.glmAttention()
      decoder.norm(.rms, "post_self_attn_layernorm")
      decoder.norm(.rms, "post_attention_layernorm")
      try decoder.joinedMLP(try decoder.config.size("intermediate_size"))
      decoder.norm(.rms, "post_mlp_layernorm")
    })
}

extension DecoderBuilder {
  /// Half of each head turns, by pairs, for which each layer lays the positions out. The result is laid out anew for
  /// the output projection.
  fileprivate mutating func glmAttention() throws(Failure) {
    projections(bias: try flag("attention_bias"), outputBias: false, resultIsSaved: false)
    positions(try rotaryLength(sizes.headLength, otherwise: 0.5), of: nil)
    fused(heads)
  }
}
