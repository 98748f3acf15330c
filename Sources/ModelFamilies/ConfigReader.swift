import Bytes
import GGUF
import JSON
import Tensors

/// Collects `config.json` from a GGUF file's metadata, under the common names of keys.
struct ConfigReader {
  let metadata: GGUFMetadata
  let family: Family
  private(set) var object = JSONObject()
  private(set) var warnings: [Warning] = []
  private let tensors: [GGUFTensor]
  private let positions: [TensorName: Int]

  init(metadata: GGUFMetadata, family: Family, tensors: [GGUFTensor]) {
    self.metadata = metadata
    self.family = family
    self.tensors = tensors
    positions = Dictionary(tensors.enumerated().map { ($1.name, $0) }) { first, _ in first }
  }

  // MARK: - Reading

  func integer(_ key: String) throws(Failure) -> Int? { try metadata.integer(full(key)) }

  func requiredInteger(_ key: String) throws(Failure) -> Int {
    guard let value = try integer(key) else { throw missing(key) }
    return value
  }

  /// The shortest number that is the same in the type it is stored in: 1e-06, not 9.999999974752427e-07.
  func number(_ key: String) throws(Failure) -> Double? {
    let value = try metadata.number(full(key))
    guard let value, value.isFinite else {
      if value != nil { throw Failure(.malformed, "metadata '\(full(key))' is not a finite number") }
      return nil
    }
    if case .float32(let float) = metadata[full(key)] { return Double(float.description) ?? value }
    return value
  }

  func requiredNumber(_ key: String) throws(Failure) -> Double {
    guard let value = try number(key) else { throw missing(key) }
    return value
  }

  func missing(_ key: String) -> Failure { Failure(.malformed, "metadata '\(full(key))' is missing") }

  func unsupported(_ key: String, _ message: String) -> Failure {
    Failure(.unsupported, "metadata '\(full(key))': \(message)")
  }

  func full(_ key: String) -> String { family.architecture + "." + key }

  // MARK: - Setting

  mutating func set(_ name: String, _ value: Int?) { object[name] = value.map { .number(JSONNumber($0)) } ?? .null }

  mutating func set(_ name: String, _ value: Double?) {
    object[name] = value.flatMap { JSONNumber($0) }.map { .number($0) } ?? .null
  }

  mutating func set(_ name: String, _ value: JSONValue) { object[name] = value }

  // MARK: - What the tensors tell

  /// The vocabulary, whether the output is the token embedding, and which biases there are.
  mutating func readTensorFlags() throws(Failure) {
    guard let embedding = positions["token_embd.weight"].map({ tensors[$0] }) else {
      throw Failure(.malformed, "is missing", tensor: "token_embd.weight")
    }
    guard embedding.shape.count == 2 else {
      throw Failure(
        .malformed, "has \(embedding.shape.count) dimensions, expected 2", tensor: embedding.name.string)
    }
    if let stated = object["vocab_size"]?.int, stated != embedding.shape[0] {
      throw Failure(
        .malformed, "has \(embedding.shape[0]) rows, metadata '\(full("vocab_size"))' is \(stated)",
        tensor: embedding.name.string)
    }
    set("vocab_size", embedding.shape[0])
    set("tie_word_embeddings", .bool(positions["output.weight"] == nil))
    for (flag, patterns) in family.biasFlags {
      let isThere = patterns.map { positions[TensorName(NumberedName.fill($0, layer: 0))] != nil }
      if let first = isThere.first, let other = isThere.firstIndex(of: !first) {
        let missing = NumberedName.fill(patterns[first ? other : 0], layer: 0)
        throw Failure(
          .unsupported, "is missing, and \(family.name) models have either all of these biases or none",
          tensor: missing)
      }
      set(flag, .bool(isThere.contains(true)))
    }
  }

  /// Tensors that stand for numbers of `config.json`.
  mutating func readFactors(_ values: (Int) throws(Failure) -> [Float]) throws(Failure) {
    switch family.rope {
    case .frequencyFactors:
      guard let position = positions["rope_freqs.weight"] else { return }
      let length = try headLength()
      let scaling = try RopeFactors.llama3Scaling(
        of: try factors(position, values), base: object["rope_theta"]?.double ?? 10000, headLength: length)
      setScaling(scaling)
    case .longFactors:
      guard let long = positions[TensorName(RopeParameters.longFactors)],
        let short = positions[TensorName(RopeParameters.shortFactors)]
      else { return }
      var scaling = JSONObject()
      for (key, position) in [("long_factor", long), ("short_factor", short)] {
        let list = try factors(position, values).compactMap { JSONNumber(Double($0.description) ?? Double($0)) }
        scaling[key] = .array(list.map { .number($0) })
      }
      // Three members, as transformers 4 insists on for this family.
      scaling["type"] = .string("longrope")
      setScaling(scaling)
    default: break
    }
  }

  private func factors(_ position: Int, _ values: (Int) throws(Failure) -> [Float]) throws(Failure) -> [Float] {
    let tensor = tensors[position]
    guard tensor.shape.count == 1, tensor.elementCount <= 65536 else {
      throw Failure(.malformed, "has shape \(tensor.shape), expected one short row", tensor: tensor.name.string)
    }
    let list = try values(position)
    guard list.count == tensor.elementCount, list.allSatisfy({ $0.isFinite && $0 > 0 }) else {
      throw Failure(.malformed, "holds factors that are no finite numbers above 0", tensor: tensor.name.string)
    }
    return list
  }

  private func headLength() throws(Failure) -> Int {
    try ModelSizes(ModelParameters(object), family).headLength
  }

  /// In the words of transformers 4 and of 5, which takes `rope_scaling` where both are there.
  mutating func setScaling(_ scaling: JSONObject) { object["rope_scaling"] = .object(scaling) }

  // MARK: - The result

  /// That the metadata states no other lengths than the tensors are turned with.
  func check(_ sizes: ModelSizes) throws(Failure) {
    if family.parameters.contains(where: { if case .ropeDimensions = $0 { true } else { false } }),
      let dimensions = try integer("rope.dimension_count"), dimensions != sizes.headLength
    {
      throw unsupported(
        "rope.dimension_count", "found \(dimensions), \(family.name) models turn all \(sizes.headLength) values")
    }
  }

  func config() throws(Failure) -> JSONValue {
    var config: JSONObject = [
      "architectures": .array([.string(family.classes[0])]), "model_type": .string(family.textModelType ?? family.name),
    ]
    let spellings = Dictionary(family.spellings.map { ($0.key, $0.value) }) { first, _ in first }
    for (key, value) in object.members { config[spellings[key] ?? key] = value }
    for (key, constant) in family.constants { config[key] = constant.json }
    for kind in ["bos", "eos", "pad"] {
      let written = metadata["tokenizer.ggml.\(kind == "pad" ? "padding" : kind)_token_id"]
      let id = written?.integer.flatMap { id in (object["vocab_size"]?.int).flatMap { (0..<$0).contains(id) ? id : nil }
      }
      config["\(kind)_token_id"] = id.map { .number(JSONNumber($0)) } ?? .null
    }
    config["rope_parameters"] = ropeParameters()
    return .object(config)
  }

  /// As transformers 5 reads them; nil for a family without.
  private func ropeParameters() -> JSONValue? {
    guard let theta = object["rope_theta"], !theta.isNull else { return nil }
    var values = object["rope_scaling"]?.object ?? JSONObject()
    values["rope_type"] = values["rope_type"] ?? values["type"] ?? .string("default")
    values["type"] = nil
    values["rope_theta"] = theta
    values["partial_rotary_factor"] = object["partial_rotary_factor"]
    guard case .byLayerType = family.rope else { return .object(values) }
    var sliding: JSONObject = ["rope_type": .string("default")]
    sliding["rope_theta"] = object["rope_local_base_freq"]
    return .object(["full_attention": .object(values), "sliding_attention": .object(sliding)])
  }
}
