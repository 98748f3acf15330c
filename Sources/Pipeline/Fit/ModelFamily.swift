/// Architectures whose shapes and whose computation follow from `config.json` alone: by `model_type`.
///
/// All are decoders of the same build (embedding; per layer a norm, attention with rotary positions, a norm, a gated
/// MLP; a norm and the output embedding); source: `modeling_*.py` of transformers 5.23.
enum ModelFamily: String, Sendable, CaseIterable {
  case llama, mistral, qwen2, qwen3, gemma

  /// The class with the output embedding.
  var architecture: String {
    switch self {
    case .llama: "LlamaForCausalLM"
    case .mistral: "MistralForCausalLM"
    case .qwen2: "Qwen2ForCausalLM"
    case .qwen3: "Qwen3ForCausalLM"
    case .gemma: "GemmaForCausalLM"
    }
  }

  /// `tie_word_embeddings` where the file does not say.
  var tiesByDefault: Bool { self == .gemma }

  /// Whether `head_dim` is `hidden_size / num_attention_heads` where the file does not say; the other
  /// classes have a number of their own, which says little of the model at hand.
  var derivesHeadSize: Bool { self != .qwen3 && self != .gemma }

  /// Queries and keys pass a norm of their own, over each head.
  var hasHeadNorms: Bool { self == .qwen3 }

  /// Norms multiply by `1 + weight`, in 32 bits.
  var hasShiftedNorms: Bool { self == .gemma }
}
