extension Family {
  /// Qwen 1.5, 2 and 2.5.
  package static let qwen2 = Family(
    "qwen2", architecture: "qwen2", classes: ["Qwen2ForCausalLM"], headlessClasses: ["Qwen2Model"],
    defaults: [
      "vocab_size": 151_936, "hidden_size": 4096, "intermediate_size": 22016, "num_hidden_layers": 32,
      "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 32768, "rms_norm_eps": 1e-6,
      "rope_theta": 10000.0, "tie_word_embeddings": false,
    ],
    constants: ["hidden_act": "silu"],
    parameters: [
      .decoder(headLengths: [.headLengths]),
      [.lostWindow("use_sliding_window")],
    ],
    tensors: [
      .embeddings(),
      .layerNorms(),
      .attention(bias: .required),
      .gatedMLP(),
    ])
}
