import Bytes
import GGUF
import JSON

extension ParameterRule {
  /// Reads this rule's keys.
  func read(_ config: inout ConfigReader) throws(Failure) {
    switch self {
    case .count(let key, let name):
      // The token embedding tells the vocabulary of files without this key.
      if name == "vocab_size" {
        if let value = try config.integer(key) { config.set(name, value) }
      } else {
        config.set(name, try config.requiredInteger(key))
      }
    case .firstCount(let key, let names):
      let value = try config.requiredInteger(key)
      for name in names { config.set(name, value) }
    case .countOrZero(let key, let name):
      let value = try config.integer(key) ?? 0
      config.set(name, value == 0 ? nil : value)
    case .number(let key, let name):
      config.set(name, try config.requiredNumber(key))
    case .nonzeroNumber(let key, let name):
      let fallback = config.family.defaults.first { $0.key == name }
      if let value = try config.number(key), value != 0 {
        config.set(name, value)
      } else if fallback == nil {
        config.set(name, .null)
      } else {
        throw config.missing(key)
      }
    case .keyValueHeads:
      if let value = try config.integer("attention.head_count_kv") {
        config.set("num_key_value_heads", value)
      } else {
        config.set("num_key_value_heads", try config.requiredInteger("attention.head_count"))
      }
    case .headLengths, .headLengthsAlways:
      try Self.readHeadLength(&config)
    case .rope:
      try config.readRope()
    case .ropeBase:
      config.set("rope_theta", try config.number("rope.freq_base") ?? 10000)
    case .causal:
      if try config.metadata.bool(config.full("attention.causal")) == false { config.set("is_causal", .bool(false)) }
    case .fourfoldFeedForward:
      let width = try config.requiredInteger("feed_forward_length")
      let hidden = try config.requiredInteger("embedding_length")
      guard hidden.multipliedReportingOverflow(by: 4) == (width, false) else {
        throw config.unsupported("feed_forward_length", "found \(width), expected four times \(hidden)")
      }
    case .slidingWindowIfAny:
      if let window = try config.integer("attention.sliding_window") {
        config.set("sliding_window", window)
      } else {
        config.set("sliding_window_pattern", 1)
      }
    case .originalContext:
      let context = try config.integer("rope.scaling.original_context_length")
      if let context {
        config.set("original_max_position_embeddings", context)
      } else {
        config.set("original_max_position_embeddings", try config.requiredInteger("context_length"))
      }
    case .partialRopeDimensions:
      try Self.readPartialRotation(&config)
    case .lostWindow(let flag):
      config.set(flag ?? "sliding_window", flag == nil ? .null : .bool(false))
    case .everyFourthLayerUnrotated:
      config.set("no_rope_layer_interval", 4)
    case .ropeDimensions, .longRopeAttentionFactor, .fileType, .derivedHeadLength, .unsupported:
      break
    }
  }

  private static func readHeadLength(_ config: inout ConfigReader) throws(Failure) {
    let key = try config.integer("attention.key_length")
    let value = try config.integer("attention.value_length")
    guard let key else {
      guard value == nil else { throw config.missing("attention.key_length") }
      // Files leave it out where it is the hidden size over the heads; a family's own default may be another.
      guard config.family.defaults.contains(where: { $0.key == "head_dim" }) else { return }
      let hidden = try config.requiredInteger("embedding_length")
      let heads = try config.requiredInteger("attention.head_count")
      guard heads > 0, hidden % heads == 0 else {
        throw config.unsupported("attention.head_count", "\(heads) does not divide the embedding length \(hidden)")
      }
      config.set("head_dim", hidden / heads)
      return
    }
    if let value, value != key {
      throw config.unsupported("attention.value_length", "found \(value), expected the key length \(key)")
    }
    config.set("head_dim", key)
  }

  private static func readPartialRotation(_ config: inout ConfigReader) throws(Failure) {
    let hidden = try config.requiredInteger("embedding_length")
    let heads = try config.requiredInteger("attention.head_count")
    let key = "rope.dimension_count"
    guard let dimensions = try config.integer(key) else { return }
    guard heads > 0, hidden % heads == 0, (1...max(1, hidden / heads)).contains(dimensions) else {
      throw config.unsupported(
        key, "found \(dimensions), a head has the embedding length \(hidden) over \(heads) values")
    }
    if dimensions != hidden / heads {
      config.set("partial_rotary_factor", Double(dimensions) / Double(hidden / heads))
    }
  }
}

extension ConfigReader {
  /// `rope_theta` and `rope_scaling`, as transformers 4 calls them.
  mutating func readRope() throws(Failure) {
    set("rope_theta", try number("rope.freq_base") ?? 10000)
    if case .byLayerType = family.rope {
      set("rope_local_base_freq", try number("rope.freq_base_swa") ?? 10000)
    }
    guard let type = try metadata.text(full("rope.scaling.type")), type != "none" else { return }
    var scaling: JSONObject = ["rope_type": .string(type)]
    switch type {
    case "linear": break
    case "yarn":
      scaling["original_max_position_embeddings"] =
        .number(JSONNumber(try requiredInteger("rope.scaling.original_context_length")))
      for (key, names) in RopeParameters.yarn {
        guard let value = try number("rope.scaling." + key), let number = JSONNumber(value) else { continue }
        scaling[names[0]] = .number(number)
      }
    default:
      throw unsupported("rope.scaling.type", "found '\(type.printable(limit: 64))', expected none, linear or yarn")
    }
    scaling["factor"] = JSONNumber(try requiredNumber("rope.scaling.factor")).map { .number($0) }
    setScaling(scaling)
  }
}
