package import Architectures
package import JSON
import Tensors

extension StoredModel {
  /// The name of each logical tensor in the model class.
  package var names: ParameterNames {
    ParameterNames(logical.items.map { logical.info($0).name }, configuration: configuration)
  }

  /// Positions of the weights that would be quantized.
  package var quantizedWeights: Set<Int> {
    let plan = weightPlan
    return Set(
      plan.dispositions.indices.filter {
        plan.dispositions[$0] == .quantize || plan.dispositions[$0] == .quantizeTransposed
      })
  }
}

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
