import Bytes
import FamilySupport
import JSON
import ModelFamilies
import Tensors
import Testing

@testable import TrainingMemory

@Suite struct TrainedDecoderTests {
  /// The parameters are those that the family's conversion reads, by name and shape; experts, which checkpoints hold
  /// one by one, by their elements.
  @Test(arguments: Family.all.map(\.name), [false, true])
  func parametersOfConvertedFamilies(_ name: String, _ isComplete: Bool) throws {
    let family = try #require(Family.all.first { $0.name == name })
    let model = try FamilyModel(family, isComplete: isComplete)
    let decoder = try TrainedDecoder(model.config)
    func isExpert(_ name: String) -> Bool { name.contains("experts.") || name.contains("block_sparse_moe") }
    func isRouter(_ name: String) -> Bool { name.hasSuffix("mlp.gate.weight") }
    var stored = model.tensors.filter { !isExpert($0.name.string) && !isRouter($0.name.string) }
    let known = Set(decoder.parameters.map(\.name))
    // What only some of its models have, under a flag of its own.
    stored.removeAll { $0.name.string.hasSuffix(".bias") && !known.contains($0.name.string) && isComplete }
    var plain = decoder.parameters.filter { !isExpert($0.name) && !isRouter($0.name) }
    // GGUF has no output embedding of these.
    if family.ignoredSuffixes.contains("lm_head.weight") { plain.removeAll { $0.name == "lm_head.weight" } }
    #expect(Set(plain.map(\.name)) == Set(stored.map(\.name.string)))
    for tensor in stored {
      #expect(plain.first { $0.name == tensor.name.string }?.shape == tensor.shape, "\(tensor.name)")
    }
    func elements(_ shapes: [[Int]]) -> Int { shapes.reduce(0) { $0 + $1.reduce(1, *) } }
    #expect(
      elements(decoder.parameters.map(\.shape).filter { $0.count == 3 })
        == elements(
          model.tensors.filter { isExpert($0.name.string) && !$0.name.string.hasSuffix("gate.weight") }.map(\.shape)))
  }

  /// GGUF's names, mlx-lm's classes and what training keeps are a table each, of three programs' ways; what a class is
  /// called, which all three say, is the same in all.
  @Test func classesOfTheThreeTables() {
    let converted = Dictionary(
      uniqueKeysWithValues: Family.all.flatMap { family in
        family.classes.map { ($0, family.textModelType ?? family.name) }
      })
    let trained = Dictionary(uniqueKeysWithValues: TrainingFamily.all.map { ($0.architecture, $0.modelType) })
    let mlx = Dictionary(uniqueKeysWithValues: MLXFamily.all.map { ($0.architecture, $0.modelType) })
    for family in Family.all {
      #expect(trained[family.classes[0]] == converted[family.classes[0]], "\(family.name): fit")
      #expect(mlx[family.classes[0]] == converted[family.classes[0]], "\(family.name): MLX")
    }
    for (name, type) in mlx {
      #expect(converted[name] ?? type == type, "\(name)")
      #expect(trained[name] ?? type == type, "\(name)")
    }
  }

  /// Every family by name, once; every layer saves something, and no size is below 1.
  @Test(arguments: TrainingFamily.all.map(\.architecture))
  func families(_ architecture: String) throws {
    let family = try #require(TrainingFamily.all.first { $0.architecture == architecture })
    #expect(TrainingFamily.all.filter { $0.name == family.name || $0.modelType == family.modelType }.count == 1)
    let decoder = try TrainedDecoder(Self.config(family))
    #expect(decoder.layers.count == 4 && decoder.layers.allSatisfy { !$0.isEmpty })
    #expect(Set(decoder.parameters.map(\.name)).count == decoder.parameters.count)
    for size in decoder.parameters.flatMap(\.shape) + decoder.layers.joined().flatMap(\.sizes) {
      #expect(size >= 1 && size < 1 << 20)
    }
    for layer in 0..<4 { #expect(decoder.parameters.contains { $0.layer == layer && $0.adapter != nil }) }
  }

  /// A size of any key that is too large, or none, is refused; nothing traps.
  @Test(arguments: TrainingFamily.all.map(\.architecture))
  func hostileSizes(_ architecture: String) throws {
    let family = try #require(TrainingFamily.all.first { $0.architecture == architecture })
    let object = try #require(Self.config(family).object)
    let values = ["0", "-1", "2147483647", "9223372036854775807", "1e400", "0.5", "\"4\"", "[]", "[9]", "{}", "null"]
    for key in object.keys where key != "architectures" && key != "model_type" {
      for text in values {
        var changed = object
        changed[key] = try JSONValue(parsing: Array(text.utf8), file: "value")
        do throws(Failure) {
          _ = try TrainedDecoder(.object(changed))
        } catch { #expect([.malformed, .unsupported].contains(error.code), "\(key) \(text): \(error)") }
      }
    }
  }

  private static func config(_ family: TrainingFamily) -> JSONValue {
    let keys: KeyValuePairs<String, Int> = [
      "vocab_size": 48, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64,
      "num_key_value_heads": 2, "max_position_embeddings": 64, "num_local_experts": 4, "num_experts_per_tok": 2,
      "moe_intermediate_size": 24, "shared_expert_intermediate_size": 40, "sliding_window": 16, "head_dim": 16,
      "q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8,
      "n_shared_experts": 2, "first_k_dense_replace": 1, "n_group": 2, "topk_group": 1, "decoder_sparse_step": 1,
      "intermediate_size_mlp": 48, "attention_chunk_size": 16, "interleave_moe_layer_step": 2,
      "no_rope_layer_interval": 4, "max_window_layers": 2, "ffn_hidden_size": 40, "sliding_window_pattern": 2,
    ]
    var object: JSONObject = [
      "architectures": .array([.string(family.architecture)]), "model_type": .string(family.modelType),
    ]
    let spellings = Dictionary(family.spellings.map { ($0.key, $0.value) }) { first, _ in first }
    for (key, value) in keys { object[spellings[key] ?? key] = .number(JSONNumber(value)) }
    for key in ["use_sliding_window", "tie_word_embeddings", "use_qk_norm", "norm_topk_prob"] {
      object[key] = .bool(true)
    }
    return .object(object)
  }
}
