extension HostileAdapter {
  /// Adapters that cannot be merged, by the name of their kind.
  static let kinds: [HostileAdapter] =
    [
      member(
        "alora_invocation_tokens", "[1, 2]", exitCode: 69, "is an activated LoRA (alora_invocation_tokens)",
        twin: "null"),
      member("arrow_config", "{\"top_k\": 3}", exitCode: 69, "is an Arrow router (arrow_config)", twin: "null"),
      member("kasa_config", "{\"beta\": 0.1}", exitCode: 69, "is a KaSA adapter (kasa_config)", twin: "null"),
    ] + initializations + tuners

  private static let initializations = [
    ("pissa", "PiSSA"), ("pissa_niter_16", "PiSSA"), ("PiSSA", "PiSSA"), ("olora", "OLoRA"), ("corda", "CorDA"),
    ("lora_ga", "LoRA-GA"), ("loftq", "LoftQ"),
  ].map { (value: String, name: String) in
    member(
      "init_lora_weights", "\"\(value)\"", exitCode: 69,
      "is a \(name) adapter (init_lora_weights '\(value.lowercased())'), whose base was changed before training",
      twin: ["\"eva\"", "\"orthogonal\"", "\"gaussian\"", "false", "\"monteclora\"", "\"mica\""][value.count % 6])
  }

  /// `peft_type` and what the line must call it.
  private static let tuners: [HostileAdapter] =
    weights.map { tuner($0, "by \($1) (peft_type \($0)), not LoRA; convert it") }
    + prompts.map { tuner($0, "by \($1) (peft_type \($0)): it prepends or inserts vectors at run time") }
    + [("GRALORA", "GRALORA"), ("lora", "lora"), ("", ""), ("X\\u001b[31m", "X\\u{1b}[31m")].map {
      tuner($0, "of type '\($1)', not LoRA")
    }

  private static let weights = [
    ("ADALORA", "AdaLoRA"), ("LOHA", "LoHa"), ("LOKR", "LoKr"), ("IA3", "IA³"), ("VERA", "VeRA"), ("BOFT", "BOFT"),
    ("OFT", "OFT"), ("MISS", "MiSS"), ("BONE", "Bone"), ("HRA", "HRA"), ("FOURIERFT", "FourierFT"), ("XLORA", "X-LoRA"),
    ("POLY", "Poly"), ("LN_TUNING", "LayerNorm tuning"), ("VBLORA", "VB-LoRA"), ("RANDLORA", "RandLoRA"),
    ("SHIRA", "SHiRA"), ("C3A", "C3A"), ("ROAD", "RoAd"), ("TRAINABLE_TOKENS", "trainable tokens alone"),
    ("WAVEFT", "WaveFT"), ("DELORA", "DeLoRA"),
  ]
  private static let prompts = [
    ("PROMPT_TUNING", "prompt tuning"), ("P_TUNING", "p-tuning"), ("PREFIX_TUNING", "prefix tuning"),
    ("MULTITASK_PROMPT_TUNING", "multitask prompt tuning"), ("ADAPTION_PROMPT", "Llama-Adapter"), ("CPT", "CPT"),
  ]

  private static func tuner(_ type: String, _ message: String) -> HostileAdapter {
    member("peft_type", "\"\(type)\"", exitCode: 69, "is an adapter \(message)", twin: "\"LORA\"")
  }
}
