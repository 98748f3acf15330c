import Testing

@testable import Adapters

@Suite struct AdapterKeyTests {
  private static let module = "model.layers.0.mlp.down_proj"

  /// What stands behind the module's path, and what it means.
  static let tails: [(text: String, role: AdapterKey.Role)] = [
    ("lora_A.weight", .loraA), ("lora_A.default.weight", .loraA), ("lora_A", .loraA), ("lora_A.default", .loraA),
    ("lora_B.weight", .loraB), ("lora_B.default.weight", .loraB), ("lora_B.bias", .loraBias),
    ("lora_B.default.bias", .loraBias), ("lora_embedding_A", .embeddingA), ("lora_embedding_A.default", .embeddingA),
    ("lora_embedding_B", .embeddingB), ("lora_embedding_B.weight", .embeddingB),
    ("lora_magnitude_vector", .magnitude), ("lora_magnitude_vector.weight", .magnitude),
    ("lora_magnitude_vector.default.weight", .magnitude), ("weight", .replacement(parameter: "weight")),
    ("bias", .replacement(parameter: "bias")), ("gate_up_proj", .replacement(parameter: "gate_up_proj")),
    ("modules_to_save.default.weight", .replacement(parameter: "weight")),
    ("modules_to_save.weight", .replacement(parameter: "weight")),
    ("modules_to_save.default.bias", .replacement(parameter: "bias")),
    ("token_adapter.trainable_tokens_delta", .tokenRows), ("token_adapter.trainable_tokens_delta.default", .tokenRows),
    ("original_module.weight", .ignored), ("lora_monteclora_sampler_A.std", .ignored),
    ("lora_monteclora_sampler.default.weight", .ignored), ("lora_A.bias", .unknown),
    ("lora_embedding_A.bias", .unknown),
    ("lora_magnitude_vector.bias", .unknown), ("lora_A.default.weight.absmax", .unknown),
    ("lora_A.default.absmax", .unknown), ("lora_A.weight.absmax", .unknown), ("lora_diag", .unknown),
    ("lora_C.weight", .unknown), ("token_adapter.weight", .unknown),
    ("token_adapter.base_layer.weight", .replacement(parameter: "weight")), ("lora_velora_x.weight", .ignored),
    ("token_adapter", .unknown),
  ]

  @Test(arguments: tails)
  func tail(_ row: (text: String, role: AdapterKey.Role)) {
    let key = AdapterKey("base_model.model.\(Self.module).\(row.text)")
    #expect(
      key.hasPrefix && key.role == row.role && (row.role == .unknown || key.module == Self.module) && key.depth == 0,
      "\(key)")
  }

  /// Words that other trainers put in between.
  @Test(arguments: [
    "base_model.model.\(module).lora_A.weight", "base_model.model._orig_mod.\(module).lora_A.weight",
    "_orig_mod.base_model.model.\(module).lora_A.weight", "module.base_model.model.\(module).lora_A.weight",
    "module.module.base_model.model.\(module).lora_A.weight",
    "_fsdp_wrapped_module.base_model.model.\(module).lora_A.default.weight",
    "base_model.model._fsdp_wrapped_module.model.layers._fsdp_wrapped_module.0.mlp.down_proj.lora_A.weight",
    "base_model.model.model.layers.0._checkpoint_wrapped_module.mlp.down_proj.lora_A.weight",
  ])
  func wrappers(_ text: String) {
    #expect(AdapterKey(text) == AdapterKey("base_model.model.\(Self.module).lora_A.weight"))
  }

  @Test func wrappersAroundWrappers() {
    for depth in 0..<4 {
      let words = String(repeating: ".base_layer", count: depth)
      let key = AdapterKey("base_model.model.model.layers.0.mlp.experts\(words).lora_B.weight")
      #expect(key.depth == depth && key.module == "model.layers.0.mlp.experts" && key.role == .loraB)
    }
    let resized = AdapterKey("base_model.model.model.embed_tokens.base_layer.weight")
    #expect(resized.module == "model.embed_tokens" && resized.role == .replacement(parameter: "weight"))
    let bias = AdapterKey("base_model.model.\(Self.module).base_layer.bias")
    #expect(bias.module == Self.module && bias.role == .replacement(parameter: "bias"))
  }

  @Test(arguments: ["model.layers.0.lora_A.weight", "base_model.lora_A.weight", "model.base_model.q.lora_A.weight", ""])
  func withoutPrefix(_ text: String) {
    #expect(!AdapterKey(text).hasPrefix)
  }

  @Test(arguments: [
    "", ".", "..", "weight", "lora_A", "lora_A.weight", "modules_to_save", "base_layer", "original_module",
  ])
  func almostNothing(_ text: String) {
    let key = AdapterKey("base_model.model.\(text)")
    #expect(key.hasPrefix && !key.module.contains("lora"))
    #expect(AdapterKey(text).hasPrefix == false)
  }
}
