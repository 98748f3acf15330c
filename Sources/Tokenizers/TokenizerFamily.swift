/// The kind of tokenizer, which decides how it is written.
enum TokenizerFamily: Sendable {
  case llama, qwen, byteLevel, gemma, gemma2, phi3

  init?(modelType: String) {
    switch modelType {
    case "llama", "mistral", "mixtral", "granite", "smollm3": self = .llama
    case "qwen2", "qwen3": self = .qwen
    case "qwen2_moe", "qwen3_moe", "starcoder2", "gpt2", "olmo2": self = .byteLevel
    case "gemma": self = .gemma
    case "gemma2", "gemma3", "gemma3_text": self = .gemma2
    case "phi3": self = .phi3
    default: return nil
    }
  }

  /// Whether a `tokenizer.model` counts.
  var usesSentencePiece: Bool { self != .byteLevel }
}
