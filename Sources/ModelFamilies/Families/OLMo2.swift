extension Family {
  package static let olmo2 = Family(
    "olmo2", architecture: "olmo2", classes: ["Olmo2ForCausalLM"],
    defaults: [
      "vocab_size": 50304, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
      "num_attention_heads": 32, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
      "tie_word_embeddings": false,
    ],
    constants: ["hidden_act": "silu"],
    parameters: [
      .decoder(headLengths: [.headLengths])
    ],
    tensors: [
      .embeddings(),
      .norm("model.layers.{layer}.post_attention_layernorm", "blk.{layer}.post_attention_norm"),
      .norm("model.layers.{layer}.post_feedforward_layernorm", "blk.{layer}.post_ffw_norm"),
      .headNorms(queries: .queries, keys: .keys),
      .attention(),
      .gatedMLP(),
    ])
}
