/// A hyper-parameter on both sides: a key under `general.architecture` in GGUF, a key of `config.json`.
///
/// Key-value pairs are written in the order of a family's rules.
package enum ParameterRule: Sendable {
  /// uint32, left out where the configuration has none.
  case count(String, String)
  /// uint32, of the first of these keys that is there.
  case firstCount(String, [String])
  /// uint32, 0 where the configuration has none.
  case countOrZero(String, String)
  /// float32, left out where the configuration has none.
  case number(String, String)
  /// float32, left out where the configuration has none or 0.
  case nonzeroNumber(String, String)
  /// uint32: the key-value heads, as many as the heads where the configuration has none.
  case keyValueHeads
  /// `attention.key_length` and `attention.value_length`, where `head_dim` is stated.
  case headLengths
  /// The same, stated or not.
  case headLengthsAlways
  /// `rope.dimension_count`: the head length.
  case ropeDimensions
  /// `rope.scaling.…` and `rope.freq_base`, as the family's `RopeForm` has them.
  case rope
  /// `attention.causal`, only where it is false.
  case causal
  /// Where `general.file_type` goes.
  case fileType
  /// `feed_forward_length`, which is 4 × `embedding_length` whatever the configuration says.
  case fourfoldFeedForward
  /// Nothing is written, as no reader takes another head length than hidden size ÷ heads.
  case derivedHeadLength
  /// Nothing is written, as readers give every layer the whole context: a window is reported. The key is a flag that
  /// switches it on.
  case lostWindow(String?)
  /// Nothing is written, as no reader takes anything but null.
  case unsupported(String)
  /// Nothing is written, as readers leave out the rotation in every fourth layer.
  case everyFourthLayerUnrotated
  /// `attention.sliding_window`, unless every layer sees everything.
  case slidingWindowIfAny
  /// Phi-3: `rope.scaling.original_context_length`.
  case originalContext
  /// Phi-3: the part of each head that turns.
  case partialRopeDimensions
  /// Phi-3: `rope.scaling.attn_factor`, where there are long factors.
  case longRopeAttentionFactor
  /// Phi-3: `rope.freq_base` alone.
  case ropeBase
}

extension [ParameterRule] {
  /// The parameters that most decoders have, in the order in which llama.cpp's converter writes them.
  static func decoder(
    epsilon: ParameterRule = .number("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
    experts: [ParameterRule] = [], headLengths: [ParameterRule] = []
  ) -> [ParameterRule] {
    [
      .count("block_count", "num_hidden_layers"), .count("context_length", "max_position_embeddings"),
      .count("embedding_length", "hidden_size"), .count("feed_forward_length", "intermediate_size"),
      .count("attention.head_count", "num_attention_heads"), .keyValueHeads, .causal, .rope, epsilon,
    ] + experts + headLengths + [.fileType]
  }

  static var experts: [ParameterRule] {
    [.count("expert_count", "num_local_experts"), .count("expert_used_count", "num_experts_per_tok")]
  }

  /// The parameters that follow in the families that llama.cpp's converter derives from Llama.
  static var llama: [ParameterRule] { [.count("vocab_size", "vocab_size"), .ropeDimensions] }
}
