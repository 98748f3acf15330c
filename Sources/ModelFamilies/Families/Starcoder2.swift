extension Family {
  package static let starcoder2 = Family(
    "starcoder2", architecture: "starcoder2", classes: ["Starcoder2ForCausalLM"],
    defaults: [
      "vocab_size": 49152, "hidden_size": 3072, "intermediate_size": 12288, "num_hidden_layers": 30,
      "num_attention_heads": 24, "num_key_value_heads": 2, "max_position_embeddings": 4096, "norm_epsilon": 1e-5,
      "rope_theta": 10000.0, "tie_word_embeddings": true,
    ],
    constants: ["hidden_act": "gelu_pytorch_tanh"],
    parameters: [
      .decoder(epsilon: .number("attention.layer_norm_epsilon", "norm_epsilon"), headLengths: [.headLengths]),
      [.lostWindow(nil)],
    ],
    tensors: [
      .embeddings(normBias: true),
      .layerNorm("model.layers.{layer}.input_layernorm", "blk.{layer}.attn_norm"),
      .layerNorm("model.layers.{layer}.post_attention_layernorm", "blk.{layer}.ffn_norm"),
      .attention(bias: .optional, outputBias: .optional),
      .linear(
        "model.layers.{layer}.mlp.c_fc", "blk.{layer}.ffn_up", [.feedForward, .hidden], bias: .optional),
      .linear(
        "model.layers.{layer}.mlp.c_proj", "blk.{layer}.ffn_down", [.hidden, .feedForward], bias: .optional),
    ],
    biasFlags: ["use_bias": Family.attentionBiases + ["blk.{layer}.ffn_up.bias", "blk.{layer}.ffn_down.bias"]])
}
