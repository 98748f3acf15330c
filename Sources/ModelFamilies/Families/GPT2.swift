extension Family {
  package static let gpt2 = Family(
    "gpt2", architecture: "gpt2", classes: ["GPT2LMHeadModel"],
    defaults: [
      "vocab_size": 50257, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
      "max_position_embeddings": 1024, "layer_norm_epsilon": 1e-5, "tie_word_embeddings": true,
    ],
    spellings: [
      "hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head",
      "max_position_embeddings": "n_positions", "intermediate_size": "n_inner",
    ],
    constants: ["activation_function": "gelu_new"],
    feedForwardFactor: 4,
    rope: .none,
    parameters: [
      [
        .count("block_count", "num_hidden_layers"),
        .firstCount("context_length", ["n_ctx", "max_position_embeddings"]),
        .count("embedding_length", "hidden_size"), .fourfoldFeedForward,
        .count("attention.head_count", "num_attention_heads"),
        .number("attention.layer_norm_epsilon", "layer_norm_epsilon"), .fileType,
      ]
    ],
    tensors: [
      [
        TensorRule("transformer.wte.weight", "token_embd.weight", [.vocabulary, .hidden]),
        TensorRule("transformer.wpe.weight", "position_embd.weight", [.positions, .hidden], isAlwaysF32: true),
        TensorRule("lm_head.weight", "output.weight", [.vocabulary, .hidden], .unlessTied),
      ],
      .layerNorm("transformer.ln_f", "output_norm"),
      .layerNorm("transformer.h.{layer}.ln_1", "blk.{layer}.attn_norm"),
      .layerNorm("transformer.h.{layer}.ln_2", "blk.{layer}.ffn_norm"),
      .linear(
        "transformer.h.{layer}.attn.c_attn", "blk.{layer}.attn_qkv", [.hidden, .queriesKeysValues], .transpose,
        bias: .required),
      .linear(
        "transformer.h.{layer}.attn.c_proj", "blk.{layer}.attn_output", [.queries, .hidden], .transpose,
        bias: .required),
      .linear(
        "transformer.h.{layer}.mlp.c_fc", "blk.{layer}.ffn_up", [.hidden, .feedForward], .transpose, bias: .required),
      .linear(
        "transformer.h.{layer}.mlp.c_proj", "blk.{layer}.ffn_down", [.feedForward, .hidden], .transpose,
        bias: .required),
    ],
    // The causal mask, which the first checkpoints hold.
    ignoredSuffixes: [".attn.bias", ".attn.masked_bias"])
}
