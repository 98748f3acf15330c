extension Family {
  package static let qwen3 = Family(
    "qwen3", architecture: "qwen3", classes: ["Qwen3ForCausalLM"], headlessClasses: ["Qwen3Model"],
    defaults: [
      "vocab_size": 151_936, "hidden_size": 4096, "intermediate_size": 22016, "num_hidden_layers": 32,
      "num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": 128, "max_position_embeddings": 32768,
      "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": false,
    ],
    constants: ["hidden_act": "silu"],
    parameters: [
      .decoder(headLengths: [.headLengths]),
      [.lostWindow("use_sliding_window")],
    ],
    tensors: [
      .embeddings(),
      .layerNorms(),
      .headNorms(),
      .attention(bias: .optional, outputBias: .optional),
      .gatedMLP(),
    ],
    biasFlags: ["attention_bias": Family.attentionBiases])
}
