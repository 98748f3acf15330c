extension Family {
  /// The text model, also as a part of the one that sees images.
  package static let gemma3 = Family(
    "gemma3", architecture: "gemma3", classes: ["Gemma3ForCausalLM"],
    multimodalClasses: ["Gemma3ForConditionalGeneration"], textModelType: "gemma3_text",
    defaults: [
      "vocab_size": 262_208, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
      "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "max_position_embeddings": 131_072,
      "rms_norm_eps": 1e-6, "rope_theta": 1_000_000.0, "rope_local_base_freq": 10000.0, "tie_word_embeddings": true,
      "sliding_window": 4096,
    ],
    constants: ["hidden_activation": "gelu_pytorch_tanh"],
    rope: .byLayerType,
    parameters: [
      .decoder(headLengths: [.headLengths]),
      [
        .nonzeroNumber("final_logit_softcapping", "final_logit_softcapping"), .unsupported("attn_logit_softcapping"),
        .slidingWindowIfAny,
      ],
    ],
    tensors: [
      .embeddings(norm: .addOne),
      .sandwichNorms(.addOne),
      .headNorms(.addOne),
      .attention(),
      .gatedMLP(),
    ])
}
