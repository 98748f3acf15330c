extension Family {
  package static let mixtral = Family(
    "mixtral", architecture: "llama", classes: ["MixtralForCausalLM"],
    defaults: [
      "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
      "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131_072, "rms_norm_eps": 1e-5,
      "rope_theta": 1_000_000.0, "tie_word_embeddings": false, "num_local_experts": 8, "num_experts_per_tok": 2,
    ],
    constants: ["hidden_act": "silu"],
    rope: .frequencyFactors,
    parameters: [
      .decoder(experts: .experts, headLengths: [.headLengths]),
      .llama,
      [.lostWindow(nil)],
    ],
    tensors: [
      .embeddings(),
      .layerNorms(),
      .attention(permuted: true),
      [
        TensorRule(
          "model.layers.{layer}.block_sparse_moe.gate.weight", "blk.{layer}.ffn_gate_inp.weight", [.experts, .hidden],
          isAlwaysF32: true),
        TensorRule(
          "model.layers.{layer}.block_sparse_moe.experts.{expert}.w1.weight", "blk.{layer}.ffn_gate_exps.weight",
          [.expertFeedForward, .hidden]),
        TensorRule(
          "model.layers.{layer}.block_sparse_moe.experts.{expert}.w2.weight", "blk.{layer}.ffn_down_exps.weight",
          [.hidden, .expertFeedForward]),
        TensorRule(
          "model.layers.{layer}.block_sparse_moe.experts.{expert}.w3.weight", "blk.{layer}.ffn_up_exps.weight",
          [.expertFeedForward, .hidden]),
      ],
    ])
}
