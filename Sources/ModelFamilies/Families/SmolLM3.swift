extension Family {
  package static let smolLM3 = Family(
    "smollm3", architecture: "smollm3", classes: ["SmolLM3ForCausalLM"],
    defaults: [
      "vocab_size": 128_256, "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
      "num_attention_heads": 16, "num_key_value_heads": 4, "max_position_embeddings": 32768, "rms_norm_eps": 1e-6,
      "rope_theta": 2_000_000.0, "tie_word_embeddings": true,
    ],
    constants: ["hidden_act": "silu"],
    rope: .frequencyFactors,
    parameters: [
      .decoder(headLengths: [.headLengths]),
      .llama,
      [
        .everyFourthLayerUnrotated, .lostWindow("use_sliding_window"),
      ],
    ],
    tensors: [
      .embeddings(),
      .layerNorms(),
      .attention(permuted: true, bias: .optional, outputBias: .optional),
      .gatedMLP(bias: .optional),
    ],
    biasFlags: ["attention_bias": Family.attentionBiases, "mlp_bias": Family.gatedMLPBiases])
}
