import JSON

/// The members that `adapter_config.json` of a LoRA adapter may have.
enum AdapterMembers {
  /// Those of PEFT 0.21.2's `LoraConfig`. What each of them does to a merge is known: it is computed with, refused, or
  /// matters in training only.
  static let known: Set = [
    "alora_invocation_tokens", "alpha_pattern", "arrow_config", "auto_mapping", "base_model_name_or_path", "bias",
    "corda_config", "ensure_weight_tying", "eva_config", "exclude_modules", "fan_in_fan_out", "inference_mode",
    "init_lora_weights", "kasa_config", "layer_replication", "layers_pattern", "layers_to_transform", "loftq_config",
    "lora_alpha", "lora_bias", "lora_dropout", "lora_ga_config", "megatron_config", "megatron_core", "modules_to_save",
    "monteclora_config", "peft_type", "peft_version", "qalora_group_size", "r", "rank_pattern", "revision",
    "runtime_config", "target_modules", "target_parameters", "task_type", "trainable_token_indices", "use_bdlora",
    "use_dora", "use_qalora", "use_rslora", "velora_config",
  ]

  /// The names of members that are not known here and have a value that says something.
  static func unknown(in members: JSONObject) -> [String] {
    members.members.filter { !known.contains($0.key) && !isNeutral($0.value) }.map(\.key)
  }

  /// Whether a value says no more than the lack of one: null, false, zero, or nothing in quotes or brackets.
  private static func isNeutral(_ value: JSONValue) -> Bool {
    value.isNull || value.bool == false || value.double == 0 || value.string?.isEmpty == true
      || value.array?.isEmpty == true || value.object?.isEmpty == true
  }
}
