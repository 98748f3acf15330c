extension Family {
  package static let mistral = Family(
    "mistral", architecture: "llama", classes: ["MistralForCausalLM"],
    defaults: [
      "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
      "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131_072, "rms_norm_eps": 1e-6,
      "rope_theta": 10000.0, "tie_word_embeddings": false,
    ],
    constants: ["hidden_act": "silu"],
    rope: .frequencyFactors,
    parameters: [
      .decoder(headLengths: [.headLengthsAlways]),
      .llama,
      [.lostWindow(nil)],
    ],
    tensors: [
      .embeddings(),
      .layerNorms(),
      .attention(permuted: true),
      .gatedMLP(),
    ])
}
