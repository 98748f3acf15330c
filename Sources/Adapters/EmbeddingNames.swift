/// The names that model classes give the input embedding.
package enum EmbeddingNames {
  static let all = ["embed_tokens", "wte", "word_embeddings", "embed_in", "tok_embeddings", "shared"]

  /// Whether a parameter is the weight of an input embedding.
  package static func isInput(_ parameter: String) -> Bool {
    all.contains { isInput(parameter, $0) }
  }

  static func isInput(_ parameter: String, _ name: String) -> Bool {
    parameter == "\(name).weight" || parameter.hasSuffix(".\(name).weight")
  }
}
