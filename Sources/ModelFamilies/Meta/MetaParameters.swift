package import Bytes
package import JSON

/// `params.json`, with which Meta and Mistral publish their own checkpoints.
package struct MetaParameters: Sendable {
  package static let fileName = "params.json"
  package static let sizeLimit = 1 << 20

  /// Whose it is: Mistral says how wide the MLP and the heads are, Meta does not.
  enum Publisher: Sendable { case meta, mistral }

  let publisher: Publisher
  let hidden: Int
  let layers: Int
  let heads: Int
  let keyHeads: Int
  let headLength: Int
  let feedForward: Int
  /// Nil where the tensors say it, for which Meta wrote -1.
  let vocabulary: Int?
  let epsilon: JSONNumber
  let theta: Double
  /// Whether positions are stretched as in Llama 3.1.
  let isScaled: Bool
  /// By how much; nil where it is not said.
  let scalingFactor: Double?
  let window: Int?
  let context: Int?
  let tiesEmbeddings: Bool?
  /// Members that say nothing that is known here.
  let unknown: [String]

  /// Those whose meaning is known, or which are about running the model.
  private static let known: Set = [
    "dim", "n_layers", "n_heads", "n_kv_heads", "head_dim", "hidden_dim", "multiple_of", "ffn_dim_multiplier",
    "vocab_size", "norm_eps", "rope_theta", "use_scaled_rope", "rope_scaling_factor", "sliding_window", "max_seq_len",
    "max_position_embeddings", "model_max_length", "tied_embeddings", "max_batch_size", "model_type",
  ]

  /// Those that make it a model of another kind, where they are anything but null, false, 0 or -1.
  private static let refused: [String: String] = [
    "moe": "is a mixture of experts", "vision_encoder": "has a vision encoder",
    "vision_chunk_size": "has a vision encoder",
    "quantization": "is quantized", "quantization_args": "is quantized", "lora_args": "has an adapter in it",
    "use_biases": "has biases", "q_lora_rank": "has multi-head latent attention",
    "kv_lora_rank": "has multi-head latent attention", "yarn": "stretches its positions by YaRN",
    "llama_4_scaling": "scales its attention by position", "use_qk_norm": "has norms of queries and keys",
  ]

  /// - Throws: `malformed` for a member that is missing or has no sensible value, `unsupported` for a model of another
  ///   kind than Llama's and Mistral's.
  package init(_ json: JSONValue) throws(Failure) {
    let object = (json["model"]?.object).map(JSONValue.object) ?? json
    guard let members = object.object?.members else { throw Self.wrong("is not a JSON object") }
    for (key, value) in members {
      guard let reason = Self.refused[key], !Self.isNothing(value) else { continue }
      throw Failure(
        .unsupported, "the model \(reason) ('\(key)'): only Llama's and Mistral's plain decoders are read in this form",
        file: Self.fileName)
    }
    unknown = members.map(\.key).filter { !Self.known.contains($0) && Self.refused[$0] == nil }
    hidden = try Self.size(object, "dim")
    layers = try Self.size(object, "n_layers")
    heads = try Self.size(object, "n_heads")
    keyHeads = try Self.optionalSize(object, "n_kv_heads") ?? heads
    let stated = try Self.optionalSize(object, "hidden_dim")
    publisher = stated == nil ? .meta : .mistral
    let length = try Self.optionalSize(object, "head_dim")
    guard length != nil || hidden % heads == 0 else {
      throw Self.wrong("dim \(hidden) is not divided by n_heads \(heads)")
    }
    headLength = length ?? hidden / heads
    guard headLength % 2 == 0, heads % keyHeads == 0 else {
      throw Self.wrong("has \(heads) heads of \(headLength) values and \(keyHeads) of keys, which do not go together")
    }
    feedForward = if let stated { stated } else { try Self.feedForward(object, hidden) }
    let vocabulary = object["vocab_size"]?.int ?? -1
    self.vocabulary = vocabulary == -1 ? nil : try Self.size(object, "vocab_size")
    guard let epsilon = object["norm_eps"]?.number, let value = epsilon.double, value > 0, value < 1 else {
      throw Self.wrong("norm_eps: expected a number between 0 and 1")
    }
    self.epsilon = epsilon
    theta = try Self.positive(object, "rope_theta") ?? 10_000
    isScaled = object["use_scaled_rope"]?.bool ?? false
    scalingFactor = try Self.positive(object, "rope_scaling_factor")
    window = try Self.window(object)
    var context = try Self.optionalSize(object, "max_position_embeddings")
    if context == nil { context = try Self.optionalSize(object, "model_max_length") }
    // Meta's is how much memory its own code takes.
    if context == nil, publisher == .mistral { context = try Self.optionalSize(object, "max_seq_len") }
    self.context = context
    tiesEmbeddings = object["tied_embeddings"]?.bool
  }

  // MARK: - Members

  private static func wrong(_ text: String) -> Failure { Failure(.malformed, text, file: fileName) }

  private static func isNothing(_ value: JSONValue) -> Bool {
    if let number = value.double { return number == 0 || number == -1 }
    return value.isNull || value.bool == false
  }

  private static func optionalSize(_ object: JSONValue, _ key: String) throws(Failure) -> Int? {
    guard let value = object[key], !value.isNull else { return nil }
    return try size(object, key)
  }

  /// A number of things of which a model has some and not more than 2^24.
  private static func size(_ object: JSONValue, _ key: String) throws(Failure) -> Int {
    guard let value = object[key] else { throw wrong("has no '\(key)'") }
    guard let size = value.int, size > 0, size <= 1 << 24 else {
      let found = value.number.map { String($0.text.prefix(32)) } ?? value.kind.rawValue
      throw wrong("\(key): found \(found), expected a whole number from 1 to \(1 << 24)")
    }
    return size
  }

  private static func positive(_ object: JSONValue, _ key: String) throws(Failure) -> Double? {
    guard let value = object[key], !value.isNull else { return nil }
    guard let number = value.double, number > 0 else { throw wrong("\(key): expected a number above 0") }
    return number
  }

  /// Two thirds of four times the model's width, times a factor, rounded up to a multiple.
  private static func feedForward(_ object: JSONValue, _ hidden: Int) throws(Failure) -> Int {
    let multiple = try optionalSize(object, "multiple_of") ?? 256
    let factor = try positive(object, "ffn_dim_multiplier") ?? 1
    let width = factor * Double(Int(Double(8 * hidden) / 3))
    guard width >= 1, width <= Double(1 << 24) else { throw wrong("ffn_dim_multiplier: gives an MLP of \(width) rows") }
    return (Int(width) + multiple - 1) / multiple * multiple
  }

  /// Some write it as a string.
  private static func window(_ object: JSONValue) throws(Failure) -> Int? {
    guard let value = object["sliding_window"], !value.isNull else { return nil }
    guard let window = value.int ?? value.string.flatMap(Int.init), window > 0 else {
      throw Failure(
        .unsupported, "sliding_window: only one window for all layers, a whole number, is known in this form",
        file: fileName)
    }
    return window
  }
}
