import Bytes
import JSON

/// Adapters that cannot be merged into weights, by name, with the reason and the way out.
enum AdapterRefusal {
  static func check(_ fields: Fields) throws(Failure) {
    let type = try fields.text("peft_type") ?? "LORA"
    guard type == "LORA" else { throw tuner(type) }
    if fields.value("alora_invocation_tokens") != nil {
      throw refused(
        "an activated LoRA (alora_invocation_tokens): it acts only behind its invocation tokens, which no merged "
          + "weight can do; serve it as an adapter")
    }
    if fields.value("arrow_config") != nil {
      throw refused(
        "an Arrow router (arrow_config): it chooses among adapters token by token; merge one of those adapters instead")
    }
    if fields.value("kasa_config") != nil {
      throw refused(
        "a KaSA adapter (kasa_config): its base lost its smallest singular components before training; merge with "
          + "PEFT, which truncates the base again")
    }
    try checkInitialization(fields)
  }

  /// These change the base's weights before training starts, so that A and B belong to what was left of them.
  private static func checkInitialization(_ fields: Fields) throws(Failure) {
    guard let text = fields.value("init_lora_weights")?.string?.lowercased() else { return }
    let mutating = ["pissa": "PiSSA", "olora": "OLoRA", "corda": "CorDA", "lora_ga": "LoRA-GA", "loftq": "LoftQ"]
    for (prefix, name) in mutating.sorted(by: { $0.key < $1.key }) where text.hasPrefix(prefix) {
      let way =
        prefix == "loftq"
        ? "save the base that LoftQ left and merge into that, or merge with PEFT"
        : "save it with save_pretrained(…, path_initial_model_for_weight_conversion=…), which converts it to plain LoRA"
      throw refused(
        "a \(name) adapter (init_lora_weights '\(text.printable(limit: 40))'), whose base was changed before training, "
          + "so that it does not fit the original base; \(way)")
    }
  }

  private static func tuner(_ type: String) -> Failure {
    let known = [
      "ADALORA": "AdaLoRA", "LOHA": "LoHa", "LOKR": "LoKr", "IA3": "IA³", "VERA": "VeRA", "BOFT": "BOFT", "OFT": "OFT",
      "MISS": "MiSS", "BONE": "Bone", "HRA": "HRA", "FOURIERFT": "FourierFT", "XLORA": "X-LoRA", "POLY": "Poly",
      "LN_TUNING": "LayerNorm tuning", "VBLORA": "VB-LoRA", "RANDLORA": "RandLoRA", "SHIRA": "SHiRA", "C3A": "C3A",
      "ROAD": "RoAd", "TRAINABLE_TOKENS": "trainable tokens alone", "WAVEFT": "WaveFT", "DELORA": "DeLoRA",
      "PROMPT_TUNING": "prompt tuning", "P_TUNING": "p-tuning", "PREFIX_TUNING": "prefix tuning",
      "MULTITASK_PROMPT_TUNING": "multitask prompt tuning", "ADAPTION_PROMPT": "Llama-Adapter", "CPT": "CPT",
    ]
    let name = known[type] ?? "of type '\(type.printable(limit: 60))'"
    let isPrompt = type.hasSuffix("PROMPT") || type.hasSuffix("TUNING") && type != "LN_TUNING" || type == "CPT"
    return refused(
      isPrompt
        ? "an adapter by \(name) (peft_type \(type.printable(limit: 60))): it prepends or inserts vectors at run time, there is no weight to merge it into"
        : "an adapter \(known[type] == nil ? name : "by \(name) (peft_type \(type))"), not LoRA; convert it with PEFT's convert_to_lora, "
          + "or merge it with PEFT's merge_and_unload")
  }

  private static func refused(_ reason: String) -> Failure { Failure(.unsupported, "is " + reason) }
}
