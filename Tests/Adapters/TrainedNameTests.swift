import Adapters
import Testing

/// What PEFT calls an adapter's parameters while it trains them, and when it saves them.
@Suite struct TrainedNameTests {
  @Test(arguments: [
    ("base_model.model.h.0.attn.lora_A.default.weight", "base_model.model.h.0.attn.lora_A.weight", "default"),
    ("base_model.model.h.0.attn.lora_B.sql.weight", "base_model.model.h.0.attn.lora_B.weight", "sql"),
    ("base_model.model.embed.lora_embedding_A.default", "base_model.model.embed.lora_embedding_A", "default"),
    ("base_model.model.q.lora_magnitude_vector.default.weight", "base_model.model.q.lora_magnitude_vector", "default"),
    ("base_model.model.score.modules_to_save.default.weight", "base_model.model.score.weight", "default"),
    (
      "base_model.model.e.token_adapter.trainable_tokens_delta.default",
      "base_model.model.e.token_adapter.trainable_tokens_delta", "default"
    ),
  ]) func saved(_ name: String, _ saved: String, _ adapter: String) throws {
    let found = try #require(TrainedName(name))
    #expect(found.saved == saved && found.adapter == adapter && TrainedName.isWrapped(name))
  }

  @Test(arguments: [
    "base_model.model.q.base_layer.weight", "base_model.model.score.original_module.weight", "base_model.model.lora_A",
    "base_model.model.q.lora_AB.default.weight", "",
  ]) func ofTheBase(_ name: String) { #expect(TrainedName(name) == nil) }

  @Test func names() { #expect(!TrainedName.isWrapped("model.layers.0.lora_A.default.weight")) }
}
