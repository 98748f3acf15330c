package import Architectures
package import JSON

extension ModelConfiguration {
  package init(_ config: JSONValue) {
    var nested: Bool?
    for key in ["text_config", "llm_config", "language_config", "decoder", "thinker_config"] where nested == nil {
      nested = config[key]?["tie_word_embeddings"]?.bool ?? config[key]?["text_config"]?["tie_word_embeddings"]?.bool
    }
    self.init(
      architecture: config["architectures"]?.array?.first?.string, modelType: config["model_type"]?.string,
      tiesWordEmbeddings: config["tie_word_embeddings"]?.bool, textTiesWordEmbeddings: nested)
  }
}
