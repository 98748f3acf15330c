import Bytes
import JSON

/// How many tokens a model has rows for.
enum VocabularySize {
  /// Four times the largest vocabulary known, so that no number in a file makes memory run out.
  static let limit = 1 << 22

  /// The sizes that transformers takes where `config.json` is silent, by `model_type`.
  private static let defaults: [String: Int] = [
    "gemma": 256000, "gemma2": 256000, "gemma3": 262208, "gemma3_text": 262208, "gpt2": 50257, "granite": 32000,
    "llama": 32000, "mistral": 32000, "mixtral": 32000, "olmo2": 50304, "phi3": 32064, "qwen2": 151936,
    "qwen2_moe": 151936, "qwen3": 151936, "qwen3_moe": 151936, "smollm3": 128256, "starcoder2": 49152,
  ]

  /// `vocab_size` of the text model; nil where neither the configuration nor the family says it.
  static func read(_ config: JSONValue, modelType: String) throws(Failure) -> Int? {
    guard let value = config["text_config"]?["vocab_size"] ?? config["vocab_size"], !value.isNull else {
      return defaults[modelType]
    }
    guard let size = value.int, (1...limit).contains(size) else {
      throw Failure(.malformed, "'vocab_size' is not a whole number from 1 to \(limit)", file: "config.json")
    }
    return size
  }
}
