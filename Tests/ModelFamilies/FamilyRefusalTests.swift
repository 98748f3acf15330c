import Bytes
import FamilySupport
import JSON
import Tensors
import TestSupport
import Testing

@testable import ModelFamilies

/// Configurations and tensors that are refused, each beside one that is not and differs in that alone.
@Suite struct FamilyRefusalTests {
  struct Row: Sendable, CustomTestStringConvertible {
    let family: String
    let key: String
    let bad: String
    let good: String
    let code: Failure.Code
    let message: String

    init(_ family: String, _ key: String, _ bad: String, _ good: String, _ message: String) {
      self.init(family, key, bad, good, .malformed, message)
    }

    init(
      _ family: String, _ key: String, _ bad: String, _ good: String, _ code: Failure.Code, _ message: String
    ) {
      (self.family, self.key, self.bad, self.good, self.code, self.message) = (family, key, bad, good, code, message)
    }

    var testDescription: String { "\(family) \(key) \(bad)" }
  }

  private static let rows: [Row] = [
    Row("llama", "num_attention_heads", "0", "4", "num_attention_heads: found 0, allowed are 1 to 2147483647"),
    Row("llama", "num_attention_heads", "-4", "4", "found -4"),
    Row("llama", "num_attention_heads", "\"4\"", "4", "found a string, expected a whole number"),
    Row("llama", "num_attention_heads", "4.0", "4", "found 4.0, expected a whole number"),
    Row("llama", "num_attention_heads", "2147483647", "4", "2 does not divide num_attention_heads 2147483647"),
    Row("llama", "num_attention_heads", "3", "4", "num_key_value_heads: 2 does not divide num_attention_heads 3"),
    Row("llama", "num_key_value_heads", "0", "2", "num_key_value_heads: found 0"),
    Row("llama", "num_key_value_heads", "3", "2", "3 does not divide num_attention_heads 4"),
    Row("llama", "num_hidden_layers", "1", "2", "is of layer 1, num_hidden_layers is 1"),
    Row("llama", "num_hidden_layers", "3", "2", "model.layers.2.input_layernorm.weight': is missing"),
    Row("llama", "num_hidden_layers", "2147483647", "2", "model.layers.2.input_layernorm.weight': is missing"),
    Row("llama", "num_hidden_layers", "2147483648", "2", "found 2147483648"),
    Row("llama", "num_hidden_layers", "99999999999999999999", "2", "expected a whole number"),
    Row("llama", "num_hidden_layers", "null", "2", "num_hidden_layers: is missing"),
    Row("llama", "vocab_size", "47", "48", "has shape [48, 32], the configuration makes it [47, 32]"),
    Row("llama", "head_dim", "2147483647", "8", "4 heads of 2147483647 are more than 2147483647"),
    Row("llama", "head_dim", "7", "8", "the configuration makes it [28, 32]"),
    Row("llama", "rms_norm_eps", "1e300", "1e-5", "found 1e+300, allowed are finite 32-bit numbers"),
    Row("llama", "rms_norm_eps", "true", "1e-5", "found true or false, expected a number"),
    Row("llama", "max_position_embeddings", "4294967296", "64", "found 4294967296, allowed are 1 to 2147483647"),
    Row("llama", "max_position_embeddings", "-1", "64", "found -1, allowed are 1 to 2147483647"),
    Row("llama", "tie_word_embeddings", "false", "true", "lm_head.weight': is missing"),
    Row("llama", "tie_word_embeddings", "1", "true", "expected true or false"),
    Row("llama", "attention_bias", "true", "false", "q_proj.bias': is missing, although attention_bias is true"),
    Row("llama", "rope_theta", "\"a\"", "10000", "rope_theta: found a string, expected a number"),
    Row("llama", "rope_scaling", "[]", "{}", "rope_scaling: found an array, expected an object"),
    Row("llama", "rope_scaling", "{\"type\": 1}", "{\"type\": \"default\"}", "rope_type: found a number"),
    Row(
      "llama", "rope_scaling", "{\"type\": \"linear\"}", "{\"type\": \"linear\", \"factor\": 2}",
      "rope scaling 'linear' has no factor"),
    Row(
      "llama", "rope_scaling", "{\"type\": \"spiral\"}", "{\"type\": \"dynamic\"}", .unsupported,
      "rope scaling 'spiral' cannot be expressed"),
    Row(
      "llama", "rope_scaling", "{\"rope_type\": \"llama3\", \"factor\": 0}",
      "{\"rope_type\": \"llama3\", \"factor\": 8}", "factor: found 0.0, allowed is above 0"),
    Row(
      "llama", "rope_scaling", "{\"rope_type\": \"llama3\", \"factor\": 1e308}", "{\"rope_type\": \"llama3\"}",
      "is not a finite number above 0"),
    Row(
      "qwen2", "rope_scaling", "{\"rope_type\": \"llama3\", \"factor\": 8}", "{\"type\": \"yarn\", \"factor\": 4}",
      .unsupported, "rope scaling 'llama3' cannot be expressed"),
    Row(
      "granite", "rope_parameters", "{\"full_attention\": 1}", "{\"full_attention\": {}}",
      "full_attention: found a number, expected an object"),
    Row("granite", "head_dim", "16", "8", "has shape [32, 32], the configuration makes it [64, 32]"),
    Row("mixtral", "num_local_experts", "4", "3", "the configuration makes it [4, 32]"),
    Row("mixtral", "num_local_experts", "2", "3", "the configuration makes it [2, 32]"),
    Row("mixtral", "num_local_experts", "4097", "3", "num_local_experts: found 4097, allowed are 1 to 4096"),
    Row("mixtral", "num_local_experts", "[3]", "3", "found an array, expected a whole number"),
    Row("gemma3", "attn_logit_softcapping", "50.0", "null", .unsupported, "readers expect none"),
    Row("gemma3", "sliding_window", "null", "16", "sliding_window: is missing"),
    Row("phi3", "partial_rotary_factor", "1.5", "0.5", "found 1.5, allowed is above 0 up to 1"),
    Row(
      "phi3", "rope_scaling", "{\"type\": \"longrope\", \"long_factor\": [1, 1, 1], \"short_factor\": [1, 1, 1, 1]}",
      "{\"type\": \"longrope\", \"long_factor\": [1, 1, 1, 1], \"short_factor\": [1, 1, 1, 1]}",
      "long_factor: found 3 factors, expected one for each two of the 8 values"),
    Row(
      "phi3", "rope_scaling", "{\"type\": \"longrope\", \"long_factor\": [1, 1, 1, 1]}",
      "{\"type\": \"longrope\", \"long_factor\": []}", "rope scaling 'longrope' has no short_factor"),
    Row(
      "phi3", "rope_scaling", "{\"type\": \"linear\", \"long_factor\": [1, 1, 1, 1]}",
      "{\"type\": \"default\"}", .unsupported, "only 'longrope' has them"),
    Row("gpt2", "n_inner", "96", "null", .malformed, "the configuration makes it [32, 96]"),
    Row("smollm3", "no_rope_layers", "[1, 0]", "[1, 1]", .unsupported, "this list of no_rope_layers"),
    Row("smollm3", "no_rope_layer_interval", "2", "4", .unsupported, "no_rope_layer_interval 2"),
  ]

  private func model(_ name: String) throws -> FamilyModel {
    try FamilyModel(try #require(Family.all.first { $0.name == name }))
  }

  @Test(arguments: rows) func configuration(_ row: Row) throws {
    var bad = try model(row.family)
    var good = bad
    try bad.set(row.key, row.bad)
    try good.set(row.key, row.good)
    let found = try #require(failure { try bad.plan() })
    #expect(found.code == row.code)
    #expect(found.description.contains(row.message), "\(found.description)")
    _ = try good.plan()
  }

  @Test func classesAreNamed() throws {
    var model = try model("llama")
    try model.set("architectures", "[\"BertModel\"]")
    let found = try #require(failure { try model.plan() })
    #expect(found.code == .unsupported)
    for family in Family.all { #expect(found.message.contains(family.classes[0])) }
    #expect(found.message.contains("'BertModel'"))
    try model.set("architectures", "[1]")
    #expect(failure { try model.plan() }?.code == .malformed)
    try model.set("architectures", "{}")
    #expect(failure { try model.plan() }?.code == .malformed)
    // Without a class, the type tells.
    try model.set("architectures", "[]")
    #expect(try model.plan().family.name == "llama")
    try model.set("model_type", "\"bert\"")
    #expect(failure { try model.plan() }?.code == .unsupported)
    model.config = .array([])
    #expect(failure { try model.plan() }?.code == .malformed)
  }

  @Test(arguments: [
    ("model.vision_tower.encoder.layers.0.weight", Failure.Code.unsupported, "vision, audio or projection part"),
    ("visual.blocks.0.attn.qkv.weight", .unsupported, "vision, audio or projection part"),
    ("multi_modal_projector.linear_1.weight", .unsupported, "vision, audio or projection part"),
    ("model.mm_projector.0.weight", .unsupported, "vision, audio or projection part"),
    ("model.layers.0.self_attn.q_proj.weight.absmax", .unsupported, "is not a weight that llama models have"),
    ("model.layers.0.mlp.experts.0.up_proj.weight", .unsupported, "is not a weight that llama models have"),
    ("model.layers.00.mlp.up_proj.weight", .unsupported, "is not a weight that llama models have"),
    ("model.layers.99999999999999999999.mlp.up_proj.weight", .unsupported, "is not a weight"),
    ("model.layers.2.mlp.up_proj.weight", .malformed, "is of layer 2, num_hidden_layers is 2"),
    ("layers.0.mlp.up_proj.weight", .malformed, "are both blk.0.ffn_up.weight"),
    ("", .unsupported, "is not a weight"),
  ])
  func tensor(name: String, code: Failure.Code, message: String) throws {
    var model = try model("llama")
    _ = try model.plan()
    model.tensors.append(try TensorInfo(name: TensorName(name), type: .bf16, shape: [64, 32]))
    let found = try #require(failure { try model.plan() })
    #expect(found.code == code)
    #expect(found.message.contains(message), "\(found.message)")
    #expect(found.tensor == name)
  }

  @Test func oneExpertMoreThanThereAre() throws {
    var model = try model("mixtral")
    _ = try model.plan()
    let name = "model.layers.1.block_sparse_moe.experts.3.w1.weight"
    model.tensors.append(try TensorInfo(name: TensorName(name), type: .bf16, shape: [64, 32]))
    let found = try #require(failure { try model.plan() })
    #expect(found.code == .malformed && found.tensor == name)
    #expect(found.message.contains("is of expert 3, the configuration has 3 experts"))
  }

  @Test func typesWithoutRealNumbers() throws {
    for type in ElementType.allCases where type.bitWidth >= 8 {
      var model = try model("llama")
      model.tensors[0] = try TensorInfo(name: model.tensors[0].name, type: type, shape: model.tensors[0].shape)
      #expect((failure { try model.plan() }?.code == .unsupported) != type.isFloat, "\(type.name)")
    }
  }

  @Test func whatIsNoWeightIsPassedOver() throws {
    var model = try model("gpt2")
    let plain = try model.plan()
    for name in ["transformer.h.0.attn.bias", "h.1.attn.masked_bias"] {
      model.tensors.append(try TensorInfo(name: TensorName(name), type: .u8, shape: [1, 1, 64, 64]))
    }
    #expect(try model.plan().weights == plain.weights)
  }

  /// The first checkpoints of GPT-2, and base models, have no first component in their names.
  @Test func namesMayLackTheModule() throws {
    var model = try model("gpt2")
    let plain = try model.plan()
    model.tensors = try model.tensors.map { tensor in
      let name = tensor.name.string.split(separator: ".").dropFirst().joined(separator: ".")
      return try TensorInfo(name: TensorName(name), type: tensor.type, shape: tensor.shape)
    }
    #expect(try model.plan().weights == plain.weights)
  }

  @Test func aModelThatSeesImagesLeavesItsTowersOut() throws {
    var model = try model("gemma3")
    let plain = try model.plan()
    let text = model.config
    model.config = .object(["architectures": .array([.string("Gemma3ForConditionalGeneration")])])
    model.config["text_config"] = text
    model.config["text_config"]?["architectures"] = nil
    model.tensors = try model.tensors.map { tensor in
      try TensorInfo(name: TensorName("language_model." + tensor.name.string), type: tensor.type, shape: tensor.shape)
    }
    for name in ["vision_tower.vision_model.embeddings.patch_embedding.weight", "multi_modal_projector.weight"] {
      model.tensors.append(try TensorInfo(name: TensorName(name), type: .bf16, shape: [4, 4]))
    }
    let plan = try model.plan()
    #expect(plan.weights == plain.weights)
    #expect(plan.warnings.count == 1 && plan.warnings[0].contains("2 tensors of other parts"))
    model.tensors.append(try TensorInfo(name: "model.unheard_of.weight", type: .bf16, shape: [4, 4]))
    #expect(failure { try model.plan() }?.code == .unsupported)
  }

  @Test func whatGGUFCannotSayIsReported() throws {
    var model = try model("mistral")
    try model.set("hidden_act", "\"relu\"")
    try model.set("sliding_window", "16")
    let warnings = try model.plan().warnings
    #expect(warnings.contains { $0.contains("hidden_act \"relu\" is left out") })
    #expect(warnings.contains { $0.contains("sliding_window 16 is left out") })
    #expect(warnings.count == 2)
  }

  /// Damaged configurations are refused or planned; nothing traps.
  @Test func mutatedConfigurations() throws {
    for family in Family.all {
      let model = try FamilyModel(family, isComplete: true)
      let bytes = Array(model.config.text(.compact).utf8)
      var mutator = Mutator(seed: 0x6661_6D69_6C79)
      for _ in 0..<400 {
        guard let config = try? JSONValue(parsing: mutator.mutated(bytes)) else { continue }
        var damaged = model
        damaged.config = config
        _ = try? damaged.plan()
      }
    }
  }
}
