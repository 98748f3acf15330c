/// A tensor's name in an adapter file, taken apart: which module it belongs to and what it is there.
struct AdapterKey: Sendable, Equatable {
  enum Role: Sendable, Equatable {
    case loraA, loraB, loraBias
    case embeddingA, embeddingB
    /// DoRA's length of each output.
    case magnitude
    /// Replaces the weight or bias of the base, whole.
    case replacement(parameter: String)
    /// Absolute rows of an embedding.
    case tokenRows
    /// A tensor of no use once training has ended.
    case ignored
    /// A tensor of a kind that is not known here.
    case unknown
  }

  /// The module's path in the model.
  var module: String
  /// Wrappers around wrappers: of several parameters of one module the first has the most.
  var depth: Int
  var role: Role
  /// Whether it began as every key of PEFT does.
  var hasPrefix: Bool

  /// PEFT's own spelling is `base_model.model.MODULE.lora_A.weight`. Older files and those of FSDP, of compiled
  /// models and of other trainers carry more words; all mean the same.
  init(_ name: String) {
    var parts = name.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
    let wrappers: Set = ["_fsdp_wrapped_module", "_orig_mod", "_checkpoint_wrapped_module"]
    parts.removeAll { wrappers.contains($0) }
    while parts.first == "module" { parts.removeFirst() }
    hasPrefix = parts.starts(with: ["base_model", "model"])
    if hasPrefix { parts.removeFirst(2) }
    let tail = Self.tail(of: &parts)
    let before = parts.count
    parts.removeAll { $0 == "base_layer" }
    module = parts.joined(separator: ".")
    depth = before - parts.count
    role = tail
  }

  /// Takes from `parts` what stands behind the module's path.
  private static func tail(of parts: inout [String]) -> Role {
    if let at = parts.firstIndex(where: { $0 == "original_module" }) {
      parts.removeLast(parts.count - at)
      return .ignored
    }
    if let at = parts.lastIndex(of: "modules_to_save") {
      // `modules_to_save.default.weight`, or without the adapter's name.
      let parameter = parts.last ?? ""
      parts.removeLast(parts.count - at)
      return .replacement(parameter: parameter)
    }
    let markers: [(String, Role, Role?)] = [
      ("lora_A", .loraA, nil), ("lora_B", .loraB, .loraBias), ("lora_embedding_A", .embeddingA, nil),
      ("lora_embedding_B", .embeddingB, nil), ("lora_magnitude_vector", .magnitude, nil),
    ]
    for (marker, weight, bias) in markers {
      guard let at = parts.lastIndex(of: marker) else { continue }
      // What follows is nothing, `weight`, the adapter's name, or both.
      let rest = parts[(at + 1)...]
      let isBias = rest.last == "bias"
      guard rest.count < 2 || rest.count == 2 && (isBias || rest.last == "weight"), !isBias || bias != nil else {
        return .unknown
      }
      parts.removeLast(parts.count - at)
      return isBias ? bias ?? .unknown : weight
    }
    if let at = parts.lastIndex(of: "token_adapter") {
      let rest = Array(parts[(at + 1)...])
      parts.removeLast(parts.count - at)
      if rest.first == "trainable_tokens_delta", rest.count <= 2 { return .tokenRows }
      // A resized embedding, saved whole beside its rows.
      return rest == ["base_layer", "weight"] ? .replacement(parameter: "weight") : .unknown
    }
    // The samplers and projections of MonteCLoRA and VeLoRA act in training only.
    let helpers = ["lora_monteclora_sampler", "lora_velora_"]
    if let at = parts.firstIndex(where: { part in helpers.contains { part.hasPrefix($0) } }) {
      parts.removeLast(parts.count - at)
      return .ignored
    }
    guard parts.count > 1, let parameter = parts.last, !parts.contains(where: { $0.hasPrefix("lora_") }) else {
      return .unknown
    }
    parts.removeLast()
    return .replacement(parameter: parameter)
  }
}
