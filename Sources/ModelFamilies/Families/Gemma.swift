extension Family {
  package static let gemma = Family(
    "gemma", architecture: "gemma", classes: ["GemmaForCausalLM"],
    defaults: [
      "vocab_size": 256_000, "hidden_size": 3072, "intermediate_size": 24576, "num_hidden_layers": 28,
      "num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 256, "max_position_embeddings": 8192,
      "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": true,
    ],
    constants: ["hidden_act": "gelu_pytorch_tanh"],
    parameters: [
      .gemma
    ],
    tensors: [
      .embeddings(norm: .addOne, head: nil),
      .layerNorms(.addOne),
      .attention(),
      .gatedMLP(),
    ],
    // The output is the token embedding, whether the checkpoint has it twice or not.
    ignoredSuffixes: ["lm_head.weight"])
}

extension [ParameterRule] {
  static var gemma: [ParameterRule] {
    [
      .count("context_length", "max_position_embeddings"), .count("embedding_length", "hidden_size"),
      .count("block_count", "num_hidden_layers"), .count("feed_forward_length", "intermediate_size"),
      .count("attention.head_count", "num_attention_heads"), .keyValueHeads,
      .number("attention.layer_norm_rms_epsilon", "rms_norm_eps"), .headLengths, .fileType,
    ]
  }
}
