import Bytes
import GGUF
import JSON

extension ParameterRule {
  /// The model that the rules read from.
  package struct Model {
    package let parameters: ModelParameters
    package let sizes: ModelSizes
    package let rope: RopeParameters
    package let family: Family
  }

  /// Adds this rule's pairs.
  func write(_ model: Model, to metadata: inout PlannedMetadata, warnings: inout [Warning]) throws(Failure) {
    let parameters = model.parameters
    switch self {
    case .count(let key, let name):
      if let value = try parameters.integer(name) { try metadata.set(key, count: value) }
    case .firstCount(let key, let names):
      for name in names {
        guard let value = try parameters.integer(name) else { continue }
        try metadata.set(key, count: value)
        break
      }
    case .countOrZero(let key, let name):
      try metadata.set(key, count: try parameters.integer(name) ?? 0)
    case .number(let key, let name):
      if let value = try parameters.number(name) { try metadata.set(key, number: value) }
    case .nonzeroNumber(let key, let name):
      if let value = try parameters.number(name), value != 0 { try metadata.set(key, number: value) }
    case .keyValueHeads:
      try metadata.set("attention.head_count_kv", count: model.sizes.keyValueHeads)
    case .headLengths:
      if let length = try parameters.integer("head_dim") { try Self.setHeadLengths(length, &metadata) }
    case .headLengthsAlways:
      try Self.setHeadLengths(model.sizes.headLength, &metadata)
    case .ropeDimensions:
      try metadata.set("rope.dimension_count", count: model.sizes.headLength)
    case .rope:
      try model.rope.write(model.family.rope, to: &metadata, warnings: &warnings)
    case .ropeBase:
      if let theta = model.rope.theta { try metadata.set("rope.freq_base", number: theta) }
    case .causal:
      if try parameters.bool("is_causal") == false { metadata.set("attention.causal", .bool(false)) }
    case .fileType:
      metadata.fileTypePosition = metadata.pairs.count
    case .fourfoldFeedForward:
      let width = 4 * (try parameters.size("hidden_size"))
      if let stated = try parameters.optionalSize("intermediate_size"), stated != width {
        throw Self.unsupported("the MLP's width \(stated)", "four times the hidden size, \(width)")
      }
      try metadata.set("feed_forward_length", count: width)
    case .derivedHeadLength:
      let hidden = try parameters.size("hidden_size")
      guard model.sizes.headLength * model.sizes.heads == hidden else {
        throw Self.unsupported("head_dim \(model.sizes.headLength)", "hidden_size / num_attention_heads")
      }
    case .lostWindow(let flag):
      let isOn = try flag.map { name throws(Failure) in try parameters.bool(name) ?? false } ?? true
      if isOn, let window = try parameters.integer("sliding_window"), window > 0 {
        warnings.append(
          "sliding_window \(window) is left out: readers of \(model.family.architecture) models in GGUF let every "
            + "layer see the whole context")
      }
    case .unsupported(let name):
      if let value = parameters[name] {
        throw Self.unsupported("\(name) \(value.text(.compact).printable(limit: 64))", "none")
      }
    case .everyFourthLayerUnrotated:
      try Self.checkUnrotatedLayers(parameters, model.sizes)
    case .slidingWindowIfAny:
      if try parameters.integer("sliding_window_pattern") != 1 {
        try metadata.set("attention.sliding_window", count: try parameters.size("sliding_window"))
      }
    case .originalContext:
      let length = try model.rope.integer("original_max_position_embeddings")
      try metadata.set(
        "rope.scaling.original_context_length",
        count: try model.rope.required("original_max_position_embeddings", length))
    case .partialRopeDimensions:
      try metadata.set("rope.dimension_count", count: try model.rope.partialDimensions(parameters, model.sizes))
    case .longRopeAttentionFactor:
      if let factor = try model.rope.attentionFactor(parameters) {
        try metadata.set("rope.scaling.attn_factor", number: factor)
      }
    }
  }

  private static func unsupported(_ found: String, _ expected: String) -> Failure {
    Failure(
      .unsupported, "\(found) cannot be expressed in GGUF, its readers expect \(expected)",
      file: ModelParameters.file)
  }

  private static func checkUnrotatedLayers(_ parameters: ModelParameters, _ sizes: ModelSizes) throws(Failure) {
    let interval = try parameters.integer("no_rope_layer_interval")
    guard let layers = try parameters.array("no_rope_layers") else {
      if let interval, interval != 4 { throw unsupported("no_rope_layer_interval \(interval)", "4") }
      return
    }
    let isRegular = layers.enumerated().allSatisfy { layer, value in value.int == ((layer + 1) % 4 == 0 ? 0 : 1) }
    guard layers.count == sizes.layers, isRegular else {
      throw unsupported("this list of no_rope_layers", "0 for every fourth layer, 1 for the others")
    }
  }

  private static func setHeadLengths(_ length: Int, _ metadata: inout PlannedMetadata) throws(Failure) {
    try metadata.set("attention.key_length", count: length)
    try metadata.set("attention.value_length", count: length)
  }
}

extension RopeParameters {
  /// - Throws: `unsupported` for a scaling that the family's GGUF form cannot say: a reader would compute something
  ///   else without noticing.
  func write(
    _ form: RopeForm, to metadata: inout PlannedMetadata, warnings: inout [Warning]
  ) throws(Failure) {
    switch (type, form) {
    case ("default", _): break
    case ("linear", _):
      metadata.set("rope.scaling.type", .text("linear"))
      try metadata.set("rope.scaling.factor", number: try required("factor", try number("factor")))
    case ("yarn", _): try writeYarn(to: &metadata)
    case ("llama3", .frequencyFactors): break
    case ("dynamic", _):
      warnings.append(
        "rope scaling 'dynamic' is left out, as GGUF cannot say it: nothing changes up to the trained context")
    default:
      throw Failure(
        .unsupported, "rope scaling '\(type.printable(limit: 64))' cannot be expressed in this family's GGUF form",
        file: ModelParameters.file)
    }
    if let theta { try metadata.set("rope.freq_base", number: theta) }
    if let slidingTheta { try metadata.set("rope.freq_base_swa", number: slidingTheta) }
  }

  /// GGUF's key after `rope.scaling.`, and the names it has in `config.json`, the first that is there counts.
  static let yarn: [(key: String, names: [String])] = [
    ("yarn_ext_factor", ["extrapolation_factor"]), ("yarn_attn_factor", ["attention_factor", "attn_factor"]),
    ("yarn_beta_fast", ["beta_fast"]), ("yarn_beta_slow", ["beta_slow"]),
  ]

  private func writeYarn(to metadata: inout PlannedMetadata) throws(Failure) {
    metadata.set("rope.scaling.type", .text("yarn"))
    try metadata.set("rope.scaling.factor", number: try required("factor", try number("factor")))
    let context = "original_max_position_embeddings"
    try metadata.set(
      "rope.scaling.original_context_length", count: try required(context, try integer(context)))
    for (key, names) in Self.yarn {
      for name in names {
        guard let value = try number(name) else { continue }
        try metadata.set("rope.scaling." + key, number: value)
        break
      }
    }
  }
}
