extension Family {
  package static let qwen3MoE = Family(
    "qwen3_moe", architecture: "qwen3moe", classes: ["Qwen3MoeForCausalLM"],
    defaults: [
      "vocab_size": 151_936, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 24,
      "num_attention_heads": 32, "num_key_value_heads": 4, "max_position_embeddings": 32768,
      "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": false, "moe_intermediate_size": 768,
      "num_experts_per_tok": 8, "num_local_experts": 128, "norm_topk_prob": false,
    ],
    spellings: ["num_local_experts": "num_experts"],
    constants: ["hidden_act": "silu", "norm_topk_prob": true],
    parameters: [
      .decoder(experts: .experts, headLengths: [.headLengths]),
      [
        .count("expert_feed_forward_length", "moe_intermediate_size"), .lostWindow("use_sliding_window"),
      ],
    ],
    tensors: [
      .embeddings(),
      .layerNorms(),
      .headNorms(),
      .attention(bias: .optional, outputBias: .optional),
      .qwenExperts,
    ],
    biasFlags: ["attention_bias": Family.attentionBiases])
}
