package import JSON

/// `adapter_config.json` of an adapter that Nibble made, as PEFT 0.21.2 would write it.
package struct ExtractedConfiguration: Sendable {
  /// The release whose fields these are; older ones drop, with a warning, those that they do not know.
  static let peftVersion = "0.21.2"

  package var rank: Int
  /// The base model as the user named it; empty where nobody did.
  package var base: String
  /// Ends of module paths, or one regular expression that matches whole paths.
  package var targets: Targets
  package var modulesToSave: [String] = []
  /// Whether some module is a `Conv1D`. PEFT looks at each module itself and corrects the flag where it is wrong.
  package var isTransposed = false
  package var hasBiases = false
  package var tiesWeights = false
  package var usesDoRA = false
  /// Numbers of the layers that the targets are meant in; nil for all.
  package var layers: [Int]?
  package var taskType: String?
  /// LoRA's α. An extracted adapter has its singular values in the factors: the scale is α/r = 1.
  package var alpha: JSONValue
  /// Ranks and alphas of modules that differ, by a pattern of their path.
  package var ranks = JSONObject()
  package var alphas = JSONObject()

  /// Nil for a class that says nothing of what it is for.
  package static func taskType(ofClass architecture: String?) -> String? {
    ["ForCausalLM", "LMHeadModel"].contains { architecture?.hasSuffix($0) == true } ? "CAUSAL_LM" : nil
  }

  package enum Targets: Sendable {
    case list([String])
    case pattern(String)
  }

  package init(rank: Int, base: String, targets: Targets) {
    self.rank = rank
    self.base = base
    self.targets = targets
    alpha = .number(rank)
  }

  package var json: JSONValue {
    let targets: JSONValue =
      switch self.targets {
      case .list(let names): .array(names.map(JSONValue.string))
      case .pattern(let pattern): .string(pattern)
      }
    return [
      "alora_invocation_tokens": nil, "alpha_pattern": .object(alphas), "arrow_config": nil, "auto_mapping": nil,
      "base_model_name_or_path": base.isEmpty ? nil : .string(base), "bias": .string(hasBiases ? "all" : "none"),
      "corda_config": nil,
      "ensure_weight_tying": .bool(tiesWeights), "eva_config": nil, "exclude_modules": nil,
      "fan_in_fan_out": .bool(isTransposed), "inference_mode": true, "init_lora_weights": true, "kasa_config": nil,
      "layer_replication": nil, "layers_pattern": nil,
      "layers_to_transform": layers.map { .array($0.map(JSONValue.number)) } ?? nil, "loftq_config": [:],
      "lora_alpha": alpha, "lora_bias": false, "lora_dropout": 0, "lora_ga_config": nil,
      "megatron_config": nil, "megatron_core": "megatron.core",
      "modules_to_save": modulesToSave.isEmpty ? nil : .array(modulesToSave.map(JSONValue.string)),
      "monteclora_config": nil, "peft_type": "LORA", "peft_version": .string(Self.peftVersion),
      "qalora_group_size": 16, "r": .number(rank), "rank_pattern": .object(ranks), "revision": nil,
      "target_modules": targets,
      "target_parameters": nil, "task_type": taskType.map(JSONValue.string) ?? nil, "trainable_token_indices": nil,
      "use_bdlora": nil, "use_dora": .bool(usesDoRA), "use_qalora": false, "use_rslora": false, "velora_config": nil,
    ]
  }

  /// A regular expression for these paths and nothing else.
  package static func pattern(of paths: some Sequence<String>) -> String {
    paths.sorted().map { path in
      path.map { $0.isLetter || $0.isNumber || $0 == "_" ? String($0) : "\\\($0)" }.joined()
    }.joined(separator: "|")
  }
}
