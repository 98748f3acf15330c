extension HostileAdapter {
  private static let wholeRank = "allowed is a whole number from 1 to 2147483647"
  private static let scaleNumber = "allowed is a finite number from 0 up"

  /// `adapter_config.json` says something that cannot be, or that contradicts the tensors.
  static let configurations: [HostileAdapter] =
    ["0", "-1", "2147483648", "4611686018427387904", "18446744073709551616", "4.0", "4e0"].map { (rank: String) in
      member("r", rank, "'r' is \(rank), \(wholeRank)", twin: "4")
    } + numbers + patterns + flags + lists

  private static let numbers: [HostileAdapter] = [
    member("r", "\"4\"", "'r' is '4', \(wholeRank)"), member("r", "true", "'r' is true or false, \(wholeRank)"),
    member("r", "[4]", "'r' is an array, \(wholeRank)"), member("r", "null", "has no 'r'"),
    member("r", nil, "has no 'r'"),
    HostileAdapter(
      "r other than A has rows", "has rank 4, adapter_config.json says 8 for 'model.layers.0.self_attn.q_proj'",
      tensor: "model.layers.0.self_attn.q_proj.lora_A.weight"
    ) { $0.adapter.set("r", "8") },
    HostileAdapter(
      "r of a tiny file as large as can be", "has rank 4, adapter_config.json says 2147483647",
      tensor: "model.layers.0.self_attn.q_proj.lora_A.weight"
    ) { $0.adapter.set("r", "2147483647") },

    member("lora_alpha", "NaN", "'lora_alpha' is NaN, \(scaleNumber)"),
    member("lora_alpha", "Infinity", "'lora_alpha' is Infinity, \(scaleNumber)"),
    member("lora_alpha", "-Infinity", "'lora_alpha' is -Infinity, \(scaleNumber)"),
    member("r", "NaN", "'r' is NaN, \(wholeRank)"), member("r", "Infinity", "'r' is Infinity, \(wholeRank)"),
    member("use_dora", "NaN", "'use_dora' is NaN, allowed is true or false"),
    member(
      "bias", "\"\\ud800\"", "'bias' is a string with half of a surrogate pair, allowed is a string", twin: "\"none\""),
    member("lora_alpha", "1e309", "'lora_alpha' is 1e309, \(scaleNumber)"),
    member("lora_alpha", "-1", "'lora_alpha' is -1, \(scaleNumber)", twin: "0", warning: "lora_alpha is 0"),
    member("lora_alpha", "\"16\"", "'lora_alpha' is '16', \(scaleNumber)", twin: "16.5"),
    member("lora_alpha", "true", "'lora_alpha' is true or false, \(scaleNumber)"),
    member("lora_alpha", "null", "has no 'lora_alpha'"), member("lora_alpha", nil, "has no 'lora_alpha'"),
  ]

  private static let patterns: [HostileAdapter] = [
    member(
      "rank_pattern", "{\"q_proj\": 8}", "has rank 4, adapter_config.json says 8 for 'model.layers.0",
      twin: "{\"q_proj\": 4, \"k_proj\": 64}"),
    member("rank_pattern", "{\"q_proj\": 0}", "'rank_pattern.q_proj' is 0, allowed is a number in range"),
    member("rank_pattern", "{\"q_proj\": 4.5}", "'rank_pattern.q_proj' is 4.5"),
    member("rank_pattern", "[\"q_proj\"]", "'rank_pattern' is an array, allowed is an object", twin: "null"),
    member("alpha_pattern", "{\"q_proj\": -1}", "'alpha_pattern.q_proj' is -1", twin: "{\"q_proj\": 0.5}"),
    member("alpha_pattern", "{\"q_proj\": 1e309}", "'alpha_pattern.q_proj' is 1e309"),
    member("alpha_pattern", "{\"q_proj\": Infinity}", "'alpha_pattern.q_proj' is Infinity"),
    member("alpha_pattern", "{\"q_proj\": \"8\"}", "'alpha_pattern.q_proj' is '8'"),
    member("alpha_pattern", "{\"q_proj\": 8, \"q_proj\": 16}", "key 'q_proj' occurs twice", twin: "{\"q_proj\": 16}"),
    pattern("alpha_pattern", "q_proj(?!x)", twin: "q_proj(?:)"),
    pattern("alpha_pattern", "(?=q)q_proj", twin: "(?P<n>q)_proj"),
    pattern("alpha_pattern", "(?<=\\\\.)q_proj", twin: "^model\\\\..*q_proj"),
    pattern("rank_pattern", "(?<!k)q_proj", twin: "[^k]_proj"), pattern("rank_pattern", "(q)_\\\\1", twin: "(q)_proj"),
    pattern("rank_pattern", "(?i)Q_PROJ", twin: "q_proj$"), pattern("alpha_pattern", "\\\\bq_proj", twin: "\\\\wproj"),
    pattern("alpha_pattern", "q_proj)", twin: "(q_proj)"), pattern("alpha_pattern", "(?P<q_proj", twin: "(?P<q>_proj)"),
    pattern("alpha_pattern", "[\\\\D]_proj", twin: "[^\\\\d]_proj"), pattern("alpha_pattern", "q**", twin: "q*"),
    pattern("alpha_pattern", "((((a{99}){99}){99}){99})", twin: "((a{9}){9})"),
    pattern("alpha_pattern", String(repeating: "q", count: 4097), twin: String(repeating: "q", count: 4096)),
  ]

  private static func pattern(_ key: String, _ text: String, twin: String) -> HostileAdapter {
    member(key, "{\"\(text)\": 4}", exitCode: 69, "'\(key)' has the pattern", twin: "{\"\(twin)\": 4}")
  }

  private static let flags: [HostileAdapter] = [
    ("use_rslora", "1"), ("use_rslora", "\"false\""), ("use_dora", "0"), ("fan_in_fan_out", "\"true\""),
    ("lora_bias", "1"), ("ensure_weight_tying", "[]"), ("use_qalora", "2"),
  ].map { (key: String, json: String) in
    member(key, json, "'\(key)' is", twin: key == "fan_in_fan_out" ? "true" : "false")
  }

  private static let lists: [HostileAdapter] = [
    member("bias", "\"some\"", "'bias' is 'some', allowed are none, all, lora_only", twin: "\"lora_only\""),
    member("bias", "true", "'bias' is true or false, allowed is a string", twin: "\"all\""),
    member("peft_type", "4", "'peft_type' is 4, allowed is a string", twin: "null"),
    member("task_type", "{}", "'task_type' is an object", twin: "null"),
    member(
      "modules_to_save", "\"lm_head\"", "'modules_to_save' is 'lm_head', allowed is an array of strings", twin: "[]"),
    member("modules_to_save", "[1]", "'modules_to_save' is 1", twin: "[\"lm_head\"]"),
    member("target_modules", "[null]", "'target_modules' is null", twin: "\".*(q|down)_proj\""),
    member("target_modules", "7", "'target_modules' is 7", twin: "\"all-linear\""),
    member("target_parameters", "{}", "'target_parameters' is an object", twin: "[\"experts.gate_up_proj\"]"),
    member(
      "layer_replication", "[[0, 3]]", "layer_replication names layer 2, the base has 2", twin: "[[0, 2]]",
      warning: "layers are replicated"),
    member(
      "layer_replication", "[[0, 1, 2]]", "'layer_replication' is an array", twin: "[[0, 2], [0, 2]]",
      warning: "layers are replicated"),
    member("layer_replication", "[[2, 0]]", "pairs [from, to] of layer numbers"),
    member("layer_replication", "[[-1, 1]]", "pairs [from, to] of layer numbers"),
    member("layer_replication", "[[0, 4611686018427387904]]", "pairs [from, to] of layer numbers"),
    member("layer_replication", "[]", "1 to 10000 layers in all", twin: "null"),
    member(
      "trainable_token_indices", "[-1]", "'trainable_token_indices' is -1, allowed is token numbers from 0 up",
      twin: "[1]"),
    member(
      "trainable_token_indices", "{\"embed_tokens\": [1, 1]}", "allowed is each token once",
      twin: "{\"embed_tokens\": [1, 2]}"),
    member("trainable_token_indices", "[1e3]", "'trainable_token_indices' is 1e3", twin: "[1000]"),
    member("use_bdlora", "true", "'use_bdlora' is true or false, allowed is an object", twin: "false"),
    member("use_bdlora", "{\"nblocks\": 0}", "'nblocks' is 0", twin: "{\"nblocks\": 4}"),
  ]
}
