import Bytes
import JSON
import ModelFamilies

/// One family of decoders: its configuration, and what it is built of, layer by layer.
struct TrainingFamily: Sendable {
  /// The family's usual name.
  let name: String
  /// transformers' `model_type`.
  let modelType: String
  /// The class with the output embedding.
  let architecture: String
  let defaults: [(key: String, value: Constant)]
  let spellings: KeyValuePairs<String, String>
  let feedForwardFactor: Int?
  /// Sizes that a configuration must state: the class's own would be those of another model.
  let stated: [String]
  let names: Names
  /// The norm in front of the output embedding.
  let lastNorm: DecoderBuilder.Norm
  let experts: ExpertTargets?
  let ignoredSuffixes: [String]
  /// Writes one layer down.
  let layer: @Sendable (inout DecoderBuilder, Int) throws(Failure) -> Void
  /// Adds the tensors outside of the layers beyond the usual ones.
  let outside: @Sendable (inout DecoderBuilder) throws(Failure) -> Void

  /// Paths of modules.
  struct Names: Sendable {
    var embedding = "model.embed_tokens"
    var layers = "model.layers"
    var norm = "model.norm"
  }

  /// Names of modules in transformers 4 that are parameters now, and as which PEFT targets them: the router's and
  /// those of the stacked matrices. No linear layer of these names gets an adapter.
  struct ExpertTargets: Sendable {
    var router: [String]
    var gateAndUp: [String]
    var down: [String]

    static let mixtral = ExpertTargets(router: ["gate"], gateAndUp: ["w1", "w3"], down: ["w2"])
    static let qwen = ExpertTargets(router: ["gate"], gateAndUp: ["gate_proj", "up_proj"], down: ["down_proj"])

    var all: [String] { router + gateAndUp + down }
  }

  private static let sizes = ["vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"]

  /// - Parameter like: the family whose keys and defaults are those of its conversion.
  init(
    _ name: String, like family: Family, names: Names = Names(), lastNorm: DecoderBuilder.Norm = .rms,
    experts: ExpertTargets? = nil, ignoredSuffixes: [String] = [],
    outside: @escaping @Sendable (inout DecoderBuilder) throws(Failure) -> Void = { _ in },
    layer: @escaping @Sendable (inout DecoderBuilder, Int) throws(Failure) -> Void
  ) {
    self.init(
      name, modelType: family.textModelType ?? family.name, architecture: family.classes[0],
      defaults: family.defaults, spellings: family.spellings, feedForwardFactor: family.feedForwardFactor,
      names: names, lastNorm: lastNorm, experts: experts, ignoredSuffixes: ignoredSuffixes, outside: outside,
      layer: layer)
  }

  init(
    _ name: String, modelType: String, architecture: String, defaults: KeyValuePairs<String, Constant>,
    spellings: KeyValuePairs<String, String> = [:], feedForwardFactor: Int? = nil, names: Names = Names(),
    lastNorm: DecoderBuilder.Norm = .rms, experts: ExpertTargets? = nil, ignoredSuffixes: [String] = [],
    outside: @escaping @Sendable (inout DecoderBuilder) throws(Failure) -> Void = { _ in },
    layer: @escaping @Sendable (inout DecoderBuilder, Int) throws(Failure) -> Void
  ) {
    self.name = name
    self.modelType = modelType
    self.architecture = architecture
    self.spellings = spellings
    self.feedForwardFactor = feedForwardFactor
    stated = Self.sizes + (feedForwardFactor == nil ? ["intermediate_size"] : [])
    let stated = stated
    self.defaults = defaults.filter { !stated.contains($0.key) && $0.key != "max_position_embeddings" }
      .map { (key: $0.key, value: $0.value) }
    self.names = names
    self.lastNorm = lastNorm
    self.experts = experts
    self.ignoredSuffixes = ignoredSuffixes
    self.layer = layer
    self.outside = outside
  }
}

extension TrainingFamily {
  static let all: [TrainingFamily] = [
    llama, mistral, mixtral, qwen2, qwen2MoE, qwen3, qwen3MoE, gemma, gemma2, gemma3, phi3, starcoder2, gpt2, granite,
    olmo2, smolLM3, glm, glm4, cohere, cohere2, falcon, deepSeekV2, deepSeekV3, gptOSS, llama4,
  ]

  /// - Throws: `unsupported`, naming what was found and what is known; `malformed` when the class is no string.
  static func of(_ config: JSONValue) throws(Failure) -> TrainingFamily {
    let named = try Family.className(config)
    let type = config["model_type"]?.string
    let match = all.first { family in
      if let named { family.architecture == named } else { family.modelType == type }
    }
    guard let match else {
      throw unknown(named ?? type.map { "model type '\($0.printable(limit: 128))'" } ?? "a config without model_type")
    }
    guard let type else { throw unknown("a config without model_type") }
    guard match.modelType == type else {
      throw unknown("a \(match.architecture) of model type '\(type.printable(limit: 128))'")
    }
    return match
  }

  private static func unknown(_ what: String) -> Failure {
    Failure(
      .unsupported,
      "fit does not know \(what.printable(limit: 200)); it knows \(all.map(\.name).joined(separator: ", ")); "
        + "'nibble inspect CHECKPOINT' tells the sizes of a model's weights", file: ModelParameters.file)
  }
}
