extension Family {
  package static let qwen2MoE = Family(
    "qwen2_moe", architecture: "qwen2moe", classes: ["Qwen2MoeForCausalLM"],
    defaults: [
      "vocab_size": 151_936, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24,
      "num_attention_heads": 16, "num_key_value_heads": 16, "max_position_embeddings": 32768, "rms_norm_eps": 1e-6,
      "rope_theta": 10000.0, "tie_word_embeddings": false, "moe_intermediate_size": 1408,
      "shared_expert_intermediate_size": 5632, "num_experts_per_tok": 4, "num_local_experts": 60,
      "norm_topk_prob": false,
    ],
    spellings: ["num_local_experts": "num_experts"],
    constants: ["hidden_act": "silu", "norm_topk_prob": false],
    parameters: [
      .decoder(experts: .experts, headLengths: [.headLengths]),
      [
        .count("expert_feed_forward_length", "moe_intermediate_size"),
        .count("expert_shared_feed_forward_length", "shared_expert_intermediate_size"),
        .lostWindow("use_sliding_window"),
      ],
    ],
    tensors: [
      .embeddings(),
      .layerNorms(),
      .attention(bias: .optional),
      .qwenExperts,
      .linear(
        "model.layers.{layer}.mlp.shared_expert.gate_proj", "blk.{layer}.ffn_gate_shexp", [.sharedFeedForward, .hidden]),
      .linear(
        "model.layers.{layer}.mlp.shared_expert.up_proj", "blk.{layer}.ffn_up_shexp", [.sharedFeedForward, .hidden]),
      .linear(
        "model.layers.{layer}.mlp.shared_expert.down_proj", "blk.{layer}.ffn_down_shexp",
        [.hidden, .sharedFeedForward]),
      [
        TensorRule(
          "model.layers.{layer}.mlp.shared_expert_gate.weight", "blk.{layer}.ffn_gate_inp_shexp.weight",
          [.one, .hidden], isAlwaysF32: true)
      ],
    ],
    biasFlags: ["qkv_bias": Family.inputBiases])
}
