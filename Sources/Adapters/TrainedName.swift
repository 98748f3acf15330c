/// The name of an adapter's parameter in the model that PEFT trains, where the base's are beside it:
/// `base_model.model.h.0.attn.lora_A.default.weight`, `base_model.model.score.modules_to_save.default.weight`.
package struct TrainedName: Sendable {
  /// As PEFT saves it: without the adapter's own name.
  package let saved: String
  /// What PEFT calls the adapter, `default` as a rule.
  package let adapter: String

  /// What stands before the adapter's name.
  private static let factors: Set<Substring> = [
    "lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", vector, "trainable_tokens_delta",
  ]
  private static let vector: Substring = "lora_magnitude_vector"
  private static let copy: Substring = "modules_to_save"

  /// Whether a name is one in a model that PEFT has wrapped.
  package static func isWrapped(_ name: String) -> Bool { name.hasPrefix("base_model.model.") }

  /// Nil for a parameter of the base.
  package init?(_ name: String) {
    var parts = name.split(separator: ".", omittingEmptySubsequences: false)
    guard let place = parts.firstIndex(where: { Self.factors.contains($0) || $0 == Self.copy }), place + 1 < parts.count
    else { return nil }
    adapter = String(parts.remove(at: place + 1))
    switch parts[place] {
    case Self.copy: parts.remove(at: place)
    // PEFT names the module's one parameter like the module.
    case Self.vector: if parts.last == "weight" { parts.removeLast() }
    default: break
    }
    saved = parts.joined(separator: ".")
  }
}
