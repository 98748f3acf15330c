extension Family {
  /// Llama 1 to 3, CodeLlama, and what shares their class.
  package static let llama = Family(
    "llama", architecture: "llama", classes: ["LlamaForCausalLM", "LLaMAForCausalLM"],
    headlessClasses: ["LlamaModel"],
    defaults: [
      "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
      "num_attention_heads": 32, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
      "tie_word_embeddings": false,
    ],
    constants: ["hidden_act": "silu"],
    rope: .frequencyFactors,
    parameters: [
      .decoder(headLengths: [.headLengthsAlways]),
      .llama,
    ],
    tensors: [
      .embeddings(),
      .layerNorms(),
      .attention(permuted: true, bias: .optional, outputBias: .optional),
      .gatedMLP(bias: .optional),
    ],
    biasFlags: ["attention_bias": Family.attentionBiases, "mlp_bias": Family.gatedMLPBiases])
}
