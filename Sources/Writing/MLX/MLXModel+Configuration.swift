package import Bytes
import Checkpoints
package import JSON
import ModelFamilies
package import Quantization

/// `config.json` as mlx-lm's converter writes it; members stay in their order.
extension MLXModel {
  package static let generationName = "generation_config.json"

  /// - Parameter generation: settings beside it, whose end of text mlx-lm takes.
  package func configuration(_ config: JSONValue, _ format: GroupFormat, generation: JSONValue?) -> JSONValue {
    var config = config
    config["_name_or_path"] = nil
    config["vision_config"] = nil
    if let tie = statedTie { config["tie_word_embeddings"] = .bool(tie) }
    for name in family.needed where config[name] == nil { config[name] = MLXFamily.member(name, in: config) }
    if let end = generation?["eos_token_id"], !end.isNull, end.int != 0, end.array?.isEmpty != true {
      config["eos_token_id"] = end
    }
    var quantization: JSONValue = [
      "group_size": .number(format.groupSize), "bits": .number(format.bits), "mode": .string(format.mode.rawValue),
    ]
    for (path, own) in exceptions {
      quantization[path] = ["group_size": .number(own.groupSize), "bits": .number(own.bits)]
    }
    config["quantization"] = quantization
    config["quantization_config"] = quantization
    return config
  }

  /// mlx-lm's classes do not read the member in which transformers 5 has what concerns rotary embeddings. Its converter
  /// leaves that as it is, and so does this.
  package func warning(_ config: JSONValue) -> Warning? {
    guard config["rope_parameters"]?.object?.isEmpty == false, config["rope_theta"] == nil,
      !family.needed.contains("rope_theta"), !family.readsRopeParameters
    else { return nil }
    return """
      mlx-lm's \(family.modelType) does not read 'rope_parameters' of config.json and computes with its own defaults; \
      it would read the older members 'rope_theta' and 'rope_scaling'
      """
  }
}
