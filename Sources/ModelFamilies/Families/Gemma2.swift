extension Family {
  package static let gemma2 = Family(
    "gemma2", architecture: "gemma2", classes: ["Gemma2ForCausalLM"],
    defaults: [
      "vocab_size": 256_000, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
      "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "max_position_embeddings": 8192,
      "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": true, "sliding_window": 4096,
      "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
    ],
    constants: ["hidden_activation": "gelu_pytorch_tanh"],
    parameters: [
      .gemma,
      [
        .number("attn_logit_softcapping", "attn_logit_softcapping"),
        .number("final_logit_softcapping", "final_logit_softcapping"),
        .count("attention.sliding_window", "sliding_window"),
      ],
    ],
    tensors: [
      .embeddings(norm: .addOne, head: nil),
      .sandwichNorms(.addOne),
      .attention(),
      .gatedMLP(),
    ],
    ignoredSuffixes: ["lm_head.weight"])
}
