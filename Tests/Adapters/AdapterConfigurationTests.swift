import Bytes
import JSON
import Testing

@testable import Adapters

@Suite struct AdapterConfigurationTests {
  private func parse(_ members: String, base: String = "\"r\": 8, \"lora_alpha\": 16") throws -> AdapterConfiguration {
    let text = "{" + [base, members].filter { !$0.isEmpty }.joined(separator: ", ") + "}"
    return try AdapterConfiguration(parsing: Array(text.utf8), file: "adapter_config.json")
  }

  private func failure(_ members: String, base: String = "\"r\": 8, \"lora_alpha\": 16") -> Failure? {
    do {
      _ = try parse(members, base: base)
      return nil
    } catch { return error as? Failure }
  }

  @Test func defaults() throws {
    let plain = try parse("")
    let null = try parse(
      [
        "use_rslora", "use_dora", "fan_in_fan_out", "lora_bias", "bias", "modules_to_save", "ensure_weight_tying",
        "target_modules", "target_parameters", "layer_replication", "trainable_token_indices", "use_qalora",
        "qalora_group_size", "use_bdlora", "init_lora_weights", "task_type", "rank_pattern", "alpha_pattern",
        "peft_type",
        "kasa_config", "arrow_config", "alora_invocation_tokens",
      ].map { "\"\($0)\": null" }.joined(separator: ", "))
    for configuration in [plain, null] {
      #expect(configuration.rank == 8 && configuration.alpha == 16)
      #expect(!configuration.usesRSLoRA && !configuration.usesDoRA && !configuration.isTransposed)
      #expect(!configuration.hasLoRABias && configuration.bias == .none && configuration.modulesToSave.isEmpty)
      #expect(
        !configuration.tiesWeights && configuration.targetModules.isEmpty && configuration.targetParameters.isEmpty)
      #expect(configuration.layerReplication.isEmpty && configuration.trainableTokens.isEmpty)
      #expect(configuration.groupSize == nil && configuration.blocks == nil && !configuration.roundsDelta)
      #expect(configuration.taskType == nil)
      #expect(configuration.scale(of: "x") == (8, 2))
    }
  }

  @Test func everyField() throws {
    let configuration = try parse(
      """
      "peft_type": "LORA", "use_rslora": true, "use_dora": true, "fan_in_fan_out": true, "lora_bias": true,
      "bias": "lora_only", "modules_to_save": ["lm_head", "score"], "ensure_weight_tying": true,
      "target_modules": ["q", "k"], "target_parameters": ["experts.w1"], "layer_replication": [[0, 4], [2, 6]],
      "trainable_token_indices": {"embed_tokens": [3, 1]}, "use_qalora": true, "qalora_group_size": 32,
      "use_bdlora": {"nblocks": 4, "target_modules_bd_a": ["o"], "target_modules_bd_b": ["q"], "match_strict": true},
      "init_lora_weights": "MiCA", "task_type": "CAUSAL_LM"
      """)
    #expect(configuration.usesRSLoRA && configuration.usesDoRA && configuration.isTransposed)
    #expect(configuration.hasLoRABias && configuration.bias == .loraOnly)
    #expect(configuration.modulesToSave == ["lm_head", "score"] && configuration.tiesWeights)
    #expect(configuration.targetModules == ["q", "k"] && configuration.targetParameters == ["experts.w1"])
    #expect(configuration.layerReplication == [0..<4, 2..<6])
    #expect(configuration.trainableTokens.map(\.module) == ["embed_tokens"])
    #expect(configuration.trainableTokens.map(\.rows) == [[3, 1]])
    #expect(configuration.groupSize == 32)
    #expect(configuration.blocks?.count == 4)
    #expect(configuration.blocks?.modulesOfA == ["o"] && configuration.blocks?.modulesOfB == ["q"])
    #expect(configuration.roundsDelta && configuration.taskType == "CAUSAL_LM")
    #expect(configuration.scale(of: "x").scale == 16 / 8.0.squareRoot())
  }

  /// A flag, a text, a list, a number, an object: each in the place of every other.
  static let kinds: [(key: String, right: [String], wrong: [String])] =
    ["use_rslora", "use_dora", "fan_in_fan_out", "lora_bias", "ensure_weight_tying", "use_qalora"].map {
      ($0, ["true", "false", "null"], ["0", "1", "\"true\"", "[]", "{}"])
    } + [
      ("r", ["1", "2147483647"], ["0", "-1", "2147483648", "8.0", "8e0", "\"8\"", "true", "[8]", "{}", "null"]),
      ("lora_alpha", ["0", "16", "0.5", "1e30"], ["-1", "-1e-9", "1e309", "\"16\"", "true", "[]", "{}", "null"]),
      ("bias", ["\"none\"", "\"all\"", "\"lora_only\""], ["\"None\"", "\"\"", "true", "1", "[]"]),
      ("task_type", ["\"CAUSAL_LM\"", "\"x\""], ["1", "[]", "true"]),
      ("peft_type", ["\"LORA\"", "null"], ["1", "[]"]),
      ("modules_to_save", ["[]", "[\"a\"]"], ["\"a\"", "1", "{}", "[1]", "[null]", "[[]]"]),
      ("target_modules", ["[]", "[\"a\"]", "\"all-linear\"", "\"(a+)+$\""], ["1", "{}", "[1]", "true"]),
      ("target_parameters", ["[]", "[\"a\"]"], ["\"a\"", "{}", "[1]"]),
      (
        "layer_replication", ["[[0, 1]]", "[[0, 2], [1, 3]]", "[[0, 0], [0, 1]]"],
        ["[]", "[0, 1]", "[[0]]", "[[0, 1, 2]]", "[[1, 0]]", "[[-1, 1]]", "[[0, 0]]", "\"x\"", "1", "[[0.0, 1]]"]
      ),
      (
        "trainable_token_indices", ["[1]", "{\"a\": [1], \"b\": []}", "[]"],
        ["[-1]", "[1, 1]", "\"1\"", "[\"1\"]", "[1.0]", "{\"a\": [[1]]}", "true", "[18446744073709551616]"]
      ),
      (
        "use_bdlora", ["false", "{}", "{\"nblocks\": 2}"],
        ["true", "1", "[]", "\"x\"", "{\"nblocks\": 0}", "{\"nblocks\": 1.5}", "{\"target_modules_bd_a\": \"q\"}"]
      ),
      (
        "rank_pattern", ["{}", "{\"q\": 1}"],
        ["[]", "1", "{\"q\": 0}", "{\"q\": 1.5}", "{\"q\": \"1\"}", "{\"q\": null}"]
      ),
      (
        "alpha_pattern", ["{}", "{\"q\": 0.5}", "{\"q\": 0}"], ["[]", "{\"q\": -1}", "{\"q\": 1e309}", "{\"q\": true}"]
      ),
    ]

  @Test(arguments: kinds)
  func kind(_ row: (key: String, right: [String], wrong: [String])) throws {
    let others = ["r", "lora_alpha"].filter { $0 != row.key }.map { "\"\($0)\": 8" }.joined(separator: ", ")
    for json in row.right {
      #expect(failure("\"\(row.key)\": \(json)", base: others) == nil, "\(json)")
    }
    for json in row.wrong {
      let found = failure("\"\(row.key)\": \(json)", base: others)
      #expect(found?.code == .malformed && found?.file == "adapter_config.json", "\(json)")
      let inner = ["nblocks", "target_modules_bd_a"].contains { json.contains($0) }
      #expect(inner || found?.message.contains("'\(row.key)") == true, "\(json): \(found?.message ?? "accepted")")
    }
  }

  @Test(arguments: ["r", "lora_alpha"])
  func missing(_ key: String) {
    let other = key == "r" ? "lora_alpha" : "r"
    #expect(failure("\"\(other)\": 8", base: "")?.message == "has no '\(key)'")
  }

  @Test func groupSize() throws {
    #expect(try parse("\"use_qalora\": true").groupSize == 16)
    #expect(try parse("\"use_qalora\": false, \"qalora_group_size\": 0").groupSize == nil)
    #expect(failure("\"use_qalora\": true, \"qalora_group_size\": 0")?.code == .malformed)
    #expect(failure("\"use_qalora\": true, \"qalora_group_size\": 1000001")?.code == .malformed)
  }

  @Test func duplicateKeys() {
    for members in ["\"r\": 8", "\"x\": 1, \"x\": 1", "\"rank_pattern\": {\"q\": 1, \"q\": 2}", "\"\\u0072\": 8"] {
      let found = failure(members)
      #expect(found?.code == .malformed && found?.message.contains("occurs twice") == true, "\(members)")
    }
  }

  /// Neither a new option of PEFT nor a name of a library changes what is merged.
  @Test func unknownFieldsAreIgnored() throws {
    let configuration = try parse(
      """
      "auto_mapping": {"base_model_class": "x", "parent_library": "os"}, "base_model_name_or_path": "../../../etc",
      "revision": null, "megatron_core": "os.system", "x": [[[{"r": 1}]]], "lora_dropout": "many", "runtime_config": {}
      """)
    #expect(configuration.rank == 8)
  }

  // MARK: - Patterns

  @Test func scales() throws {
    let configuration = try parse(
      "\"rank_pattern\": {\"q_proj\": 4, \"layers.0.self_attn.q_proj\": 2}, "
        + "\"alpha_pattern\": {\"layers.0.*\": 32, \"q_proj\": 1, \"^model.*v_proj\": 0.5}")
    // The first in the order of the file counts, not the longest.
    #expect(configuration.scale(of: "model.layers.0.self_attn.q_proj") == (4, 8))
    #expect(configuration.scale(of: "model.layers.1.self_attn.q_proj") == (4, 0.25))
    #expect(configuration.scale(of: "model.layers.10.self_attn.k_proj") == (8, 2))
    #expect(configuration.scale(of: "model.layers.1.self_attn.v_proj") == (8, 0.0625))
    #expect(configuration.scale(of: "xq_proj") == (8, 2))
  }

  @Test func rankStabilizedScales() throws {
    let configuration = try parse("\"use_rslora\": true, \"rank_pattern\": {\"q\": 4}, \"alpha_pattern\": {\"q\": 3}")
    #expect(configuration.scale(of: "a.q") == (4, 1.5))
  }

  @Test func savedModules() throws {
    let configuration = try parse("\"modules_to_save\": [\"lm_head\", \"a.b\"]")
    for path in ["lm_head", "model.lm_head", "a.b", "x.a.b"] { #expect(configuration.saves(path), "\(path)") }
    for path in ["xlm_head", "lm_head.x", "b", "a.b.c", ""] { #expect(!configuration.saves(path), "\(path)") }
  }

  @Test func sidesOfBlocks() throws {
    let blocks = try #require(
      try parse(
        "\"use_bdlora\": {\"target_modules_bd_a\": [\"o_proj\"], \"target_modules_bd_b\": [\"q_\", \"attn.o\"]}"
      ).blocks)
    #expect(blocks.count == 1)
    #expect(blocks.side(of: "mlp.o_proj") == .a && blocks.side(of: "attn.q_proj") == .b)
    #expect(blocks.side(of: "attn.o_proj") == .both && blocks.side(of: "v_proj") == nil)
  }
}
