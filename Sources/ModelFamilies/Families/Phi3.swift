extension Family {
  /// Phi-3, Phi-3.5 and Phi-4.
  package static let phi3 = Family(
    "phi3", architecture: "phi3", classes: ["Phi3ForCausalLM"],
    defaults: [
      "vocab_size": 32064, "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32,
      "num_attention_heads": 32, "max_position_embeddings": 4096, "original_max_position_embeddings": 4096,
      "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": false,
    ],
    constants: ["hidden_act": "silu"],
    rope: .longFactors,
    firstParameters: [.longRopeAttentionFactor],
    parameters: [
      [
        .count("context_length", "max_position_embeddings"), .originalContext,
        .count("embedding_length", "hidden_size"), .count("feed_forward_length", "intermediate_size"),
        .count("block_count", "num_hidden_layers"), .count("attention.head_count", "num_attention_heads"),
        .keyValueHeads, .number("attention.layer_norm_rms_epsilon", "rms_norm_eps"), .partialRopeDimensions, .ropeBase,
        .fileType, .countOrZero("attention.sliding_window", "sliding_window"), .derivedHeadLength,
      ]
    ],
    tensors: [
      .embeddings(),
      .layerNorms(),
      .linear("model.layers.{layer}.self_attn.qkv_proj", "blk.{layer}.attn_qkv", [.queriesKeysValues, .hidden]),
      .linear("model.layers.{layer}.self_attn.o_proj", "blk.{layer}.attn_output", [.hidden, .queries]),
      .linear("model.layers.{layer}.mlp.gate_up_proj", "blk.{layer}.ffn_up", [.twiceFeedForward, .hidden]),
      .linear("model.layers.{layer}.mlp.down_proj", "blk.{layer}.ffn_down", [.hidden, .feedForward]),
    ])
}
