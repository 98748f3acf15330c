import Bytes
import JSON

/// The `config.json` of a model that has `params.json`.
struct MetaConfiguration {
  let config: JSONValue
  let warnings: [Warning]

  /// Of Llama 3 and what is built on it.
  private static let newTheta = 500_000.0
  private static let (newBegin, newEnd) = (128_000, 128_001)

  init(_ parameters: MetaParameters, vocabulary: Int, isTied: Bool) {
    let isMistral = parameters.publisher == .mistral
    let isNew = !isMistral && (parameters.isScaled || parameters.theta == Self.newTheta)
    let hasNewTokens = isNew && vocabulary > Self.newEnd
    let context = parameters.context ?? Self.context(parameters, isNew: isNew)
    var supposed = parameters.context == nil ? ["max_position_embeddings \(context)"] : []
    var config: JSONValue = [
      "architectures": [.string(isMistral ? "MistralForCausalLM" : "LlamaForCausalLM")],
      "model_type": .string(isMistral ? "mistral" : "llama"), "vocab_size": .number(vocabulary),
      "hidden_size": .number(parameters.hidden), "intermediate_size": .number(parameters.feedForward),
      "num_hidden_layers": .number(parameters.layers), "num_attention_heads": .number(parameters.heads),
      "num_key_value_heads": .number(parameters.keyHeads), "head_dim": .number(parameters.headLength),
      "hidden_act": "silu", "max_position_embeddings": .number(context), "rms_norm_eps": .number(parameters.epsilon),
      "tie_word_embeddings": .bool(isTied), "bos_token_id": .number(hasNewTokens ? Self.newBegin : 1),
      "eos_token_id": .number(hasNewTokens ? Self.newEnd : 2),
    ]
    if isMistral {
      config["sliding_window"] = parameters.window.map(JSONValue.number) ?? .null
    } else {
      config["attention_bias"] = false
      config["mlp_bias"] = false
    }
    func number(_ value: Double) -> JSONValue { JSONNumber(value).map(JSONValue.number) ?? .null }
    var scaling: JSONValue = ["rope_type": "default"]
    if parameters.isScaled {
      // Llama 3.2, whose embeddings are tied, stretches them more than 3.1.
      let factor = parameters.scalingFactor ?? (isTied ? 32 : 8)
      if parameters.scalingFactor == nil { supposed.append("a rope_scaling with the factor \(Int(factor))") }
      scaling = [
        "rope_type": "llama3", "factor": number(factor), "low_freq_factor": number(1), "high_freq_factor": number(4),
        "original_max_position_embeddings": .number(8192),
      ]
    }
    // In the words of transformers 4 and of 5.
    config["rope_theta"] = number(parameters.theta)
    config["rope_scaling"] = parameters.isScaled ? scaling : .null
    scaling["rope_theta"] = number(parameters.theta)
    config["rope_parameters"] = scaling
    self.config = config
    var warnings: [Warning] = []
    if !supposed.isEmpty {
      warnings.append(
        "'\(MetaParameters.fileName)' does not say all that config.json does; taken as such models have it: "
          + "\(list: supposed)")
    }
    if !parameters.unknown.isEmpty {
      warnings.append(
        "'\(MetaParameters.fileName)': passed over, since its meaning is not known: \(names: parameters.unknown)")
    }
    self.warnings = warnings
  }

  private static func context(_ parameters: MetaParameters, isNew: Bool) -> Int {
    if parameters.publisher == .mistral { return 32768 }
    if isNew { return parameters.isScaled ? 131_072 : 8192 }
    // CodeLlama.
    return parameters.theta > 10_000 ? 16384 : 4096
  }
}
