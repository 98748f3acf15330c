import Bytes
import JSON
import Tensors

/// The sizes of a decoder, from `config.json`.
struct ModelShape: Sendable, Equatable {
  let family: ModelFamily
  let vocabulary: Int
  let hidden: Int
  let intermediate: Int
  let layers: Int
  let heads: Int
  let keyValueHeads: Int
  let headSize: Int
  let tiesEmbeddings: Bool
  let hasQueryBias: Bool
  let hasOutputBias: Bool
  let hasMLPBias: Bool
  /// Attention looks back at most so many tokens; nil without a limit.
  let window: Int?

  /// Far above any model; every layer is planned one by one.
  static let layerLimit = 4096

  var queryWidth: Checked { Checked(heads) * Checked(headSize) }
  var keyWidth: Checked { Checked(keyValueHeads) * Checked(headSize) }

  /// - Throws: `malformed` for a size that is missing, no whole number, below 1 or too large; `unsupported` for an
  ///   architecture that is none of `ModelFamily`.
  init(_ config: JSONValue) throws(Failure) {
    let type = config["model_type"]?.string
    guard let type, let family = ModelFamily(rawValue: type) else {
      let name = type.map { "model type '\($0)'" } ?? "a config without model_type"
      let known = ModelFamily.allCases.map(\.rawValue).joined(separator: ", ")
      throw Failure(
        .unsupported,
        "\(name): the shapes cannot be told from the config alone, those of \(known) can; "
          + "'nibble inspect CHECKPOINT' tells the sizes of its weights")
    }
    if let named = config["architectures"]?.array?.first?.string, named != family.architecture {
      throw Failure(
        .unsupported,
        "model class '\(named)': the shapes cannot be told from the config alone, those of \(family.architecture) can; "
          + "'nibble inspect CHECKPOINT' tells the sizes of its weights")
    }
    self.family = family
    vocabulary = try Self.size("vocab_size", config)
    hidden = try Self.size("hidden_size", config)
    intermediate = try Self.size("intermediate_size", config)
    layers = try Self.size("num_hidden_layers", config, limit: Self.layerLimit)
    heads = try Self.size("num_attention_heads", config)
    if config["num_key_value_heads"]?.isNull ?? (family == .llama) {
      keyValueHeads = heads
    } else {
      keyValueHeads = try Self.size("num_key_value_heads", config)
    }
    guard heads % keyValueHeads == 0 else {
      throw Failure(.malformed, "num_attention_heads \(heads) is no multiple of num_key_value_heads \(keyValueHeads)")
    }
    if config["head_dim"]?.isNull ?? true, family.derivesHeadSize {
      guard hidden % heads == 0 else {
        throw Failure(.malformed, "hidden_size \(hidden) is no multiple of num_attention_heads \(heads)")
      }
      headSize = hidden / heads
    } else {
      headSize = try Self.size("head_dim", config)
    }
    tiesEmbeddings = try Self.flag("tie_word_embeddings", config) ?? family.tiesByDefault
    let hasBias = try Self.flag("attention_bias", config) ?? false
    hasQueryBias = family == .qwen2 || hasBias && family != .mistral
    hasOutputBias = hasBias && family != .mistral && family != .qwen2
    hasMLPBias = try Self.flag("mlp_bias", config) ?? false && family == .llama
    window = try Self.window(config, family)
  }

  private static func size(_ key: String, _ config: JSONValue, limit: Int = .max) throws(Failure) -> Int {
    guard let value = config[key] else { throw Failure(.malformed, "has no \(key)") }
    guard let number = value.int, number >= 1, number <= limit else {
      let found = value.number?.text ?? value.kind.rawValue
      let upper = limit == .max ? "" : " up to \(limit)"
      throw Failure(.malformed, "\(key) is \(found), allowed are whole numbers from 1\(upper)")
    }
    return number
  }

  private static func flag(_ key: String, _ config: JSONValue) throws(Failure) -> Bool? {
    guard let value = config[key], !value.isNull else { return nil }
    guard let flag = value.bool else {
      throw Failure(.malformed, "\(key) is \(value.kind.rawValue), expected true or false")
    }
    return flag
  }

  /// Mistral has a window where the key is set; Qwen also needs `use_sliding_window`.
  private static func window(_ config: JSONValue, _ family: ModelFamily) throws(Failure) -> Int? {
    guard let value = config["sliding_window"], !value.isNull else { return nil }
    switch family {
    case .llama, .gemma: return nil
    case .mistral: return try size("sliding_window", config)
    case .qwen2, .qwen3:
      return try flag("use_sliding_window", config) ?? false ? try size("sliding_window", config) : nil
    }
  }
}

extension ModelShape {
  /// Every parameter by its name, in the model's order.
  ///
  /// - Throws: `malformed` when a size overflows.
  func tensors(_ type: ElementType) throws(Failure) -> [TensorInfo] {
    let query = try queryWidth.number("sizes of the attention")
    let key = try keyWidth.number("sizes of the attention")
    var tensors: [TensorInfo] = []
    func add(_ name: String, _ shape: Int...) throws(Failure) {
      tensors.append(try TensorInfo(name: TensorName(name), type: type, shape: shape))
    }
    func linear(_ name: String, _ output: Int, _ input: Int, bias: Bool) throws(Failure) {
      try add(name + ".weight", output, input)
      if bias { try add(name + ".bias", output) }
    }
    try add("model.embed_tokens.weight", vocabulary, hidden)
    for layer in 0..<layers {
      let prefix = "model.layers.\(layer)."
      try linear(prefix + "self_attn.q_proj", query, hidden, bias: hasQueryBias)
      try linear(prefix + "self_attn.k_proj", key, hidden, bias: hasQueryBias)
      try linear(prefix + "self_attn.v_proj", key, hidden, bias: hasQueryBias)
      try linear(prefix + "self_attn.o_proj", hidden, query, bias: hasOutputBias)
      if family.hasHeadNorms {
        try add(prefix + "self_attn.q_norm.weight", headSize)
        try add(prefix + "self_attn.k_norm.weight", headSize)
      }
      try linear(prefix + "mlp.gate_proj", intermediate, hidden, bias: hasMLPBias)
      try linear(prefix + "mlp.up_proj", intermediate, hidden, bias: hasMLPBias)
      try linear(prefix + "mlp.down_proj", hidden, intermediate, bias: hasMLPBias)
      try add(prefix + "input_layernorm.weight", hidden)
      try add(prefix + "post_attention_layernorm.weight", hidden)
    }
    try add("model.norm.weight", hidden)
    if !tiesEmbeddings { try add("lm_head.weight", vocabulary, hidden) }
    return tensors
  }
}
