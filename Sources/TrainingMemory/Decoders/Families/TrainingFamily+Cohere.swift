import Bytes
import ModelFamilies

extension TrainingFamily {
  private static let cohereDefaults: KeyValuePairs<String, Constant> = ["tie_word_embeddings": true]

  /// Command R. Attention and MLP are computed from one norm.
  static let cohere = TrainingFamily(
    "Cohere", modelType: "cohere", architecture: "CohereForCausalLM", defaults: cohereDefaults, lastNorm: .cohere,
    layer: { decoder, _ throws(Failure) in
      let bias = try decoder.flag("attention_bias")
      decoder.norm(.cohere, "input_layernorm")
      decoder.attention(bias: bias, outputBias: bias, norm: try decoder.flag("use_qk_norm") ? .cohere : nil)
      decoder.gatedMLP(width: try decoder.config.size("intermediate_size"), input: "attention")
    })

  /// Command R7B and A: three layers with a window, which turn, and one without either.
  static let cohere2 = TrainingFamily(
    "Cohere 2", modelType: "cohere2", architecture: "Cohere2ForCausalLM", defaults: cohereDefaults, lastNorm: .cohere,
    layer: { decoder, layer throws(Failure) in
      let bias = try decoder.flag("attention_bias")
      let pattern = try decoder.config.optionalSize("sliding_window_pattern") ?? 4
      let window = try decoder.window(otherwise: (layer + 1) % pattern != 0)
      decoder.norm(.cohere, "input_layernorm")
      decoder.attention(bias: bias, outputBias: bias, window: window, rotary: window == nil ? 0 : nil)
      decoder.gatedMLP(width: try decoder.config.size("intermediate_size"), input: "attention")
    })
}
