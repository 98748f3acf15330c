extension Family {
  package static let granite = Family(
    "granite", architecture: "granite", classes: ["GraniteForCausalLM"],
    defaults: [
      "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
      "num_attention_heads": 32, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
      "tie_word_embeddings": false, "attention_multiplier": 1.0, "embedding_multiplier": 1.0,
      "residual_multiplier": 1.0, "logits_scaling": 1.0,
    ],
    constants: ["hidden_act": "silu"],
    parameters: [
      .decoder(),
      .llama,
      [
        .nonzeroNumber("attention.scale", "attention_multiplier"),
        .nonzeroNumber("embedding_scale", "embedding_multiplier"),
        .nonzeroNumber("residual_scale", "residual_multiplier"), .nonzeroNumber("logit_scale", "logits_scaling"),
        .derivedHeadLength,
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
