extension HostileAdapter {
  private static let a = "model.layers.0.self_attn.q_proj.lora_A.weight"

  /// The two files of an adapter are not what they should be.
  static let files: [HostileAdapter] =
    configTexts + [
      HostileAdapter(
        "pickle only", "is neither a ZIP archive nor a series of pickles, which torch.save writes",
        warning: "'adapter_model.bin' is ignored: 'adapter_model.safetensors' counts"
      ) {
        $0.adapter.files = [pickle]
        $0.adapter.missing = [AdapterBuilder.weightsName]
      }.beside { $0.adapter.files = [pickle] },
      HostileAdapter("nothing in it", exitCode: 66, "holds no 'adapter_config.json': it is not a PEFT adapter") {
        $0.adapter.missing = [AdapterBuilder.configName, AdapterBuilder.weightsName]
      },
      HostileAdapter("no adapter_config.json", exitCode: 66, "holds no 'adapter_config.json'") {
        $0.adapter.missing = [AdapterBuilder.configName]
      },
      HostileAdapter(
        "an adapter of mlx-lm without its settings", exitCode: 66,
        "holds 'adapters.safetensors' of mlx-lm without 'adapter_config.json', which says its scale"
      ) {
        $0.adapter.files = [("adapters.safetensors", $0.adapter.weights ?? [])]
        $0.adapter.missing = [AdapterBuilder.configName, AdapterBuilder.weightsName]
      },
      HostileAdapter("config.json instead of adapter_config.json", exitCode: 66, "holds no 'adapter_config.json'") {
        $0.adapter.files = [("config.json", Array($0.adapter.json.utf8))]
        $0.adapter.missing = [AdapterBuilder.configName]
      },
      HostileAdapter("a model's config.json as adapter_config.json", "has no 'r'") {
        $0.adapter.config = Array(($0.base.config ?? "").utf8)
      },
      HostileAdapter("no weights", exitCode: 66, "holds no 'adapter_model.safetensors'") {
        $0.adapter.missing = [AdapterBuilder.weightsName]
      },
      HostileAdapter("a model's weights", "does not begin with 'base_model.model.'") {
        $0.adapter.tensors = $0.base.tensors
      },
      HostileAdapter("empty weights", "adapter_model.safetensors: ") { $0.adapter.weights = [] },
      HostileAdapter("weights cut short by a byte", "data is cut short") {
        $0.adapter.weights = SafetensorsBuilder($0.adapter.tensors).bytes.dropLast()
      },
      HostileAdapter("weights cut in the header", "adapter_model.safetensors: ") {
        $0.adapter.weights = Array(SafetensorsBuilder($0.adapter.tensors).bytes.prefix(100))
      },
      HostileAdapter("weights with a byte too many", "adapter_model.safetensors: ") {
        $0.adapter.weights = SafetensorsBuilder($0.adapter.tensors).bytes + [0]
      },
      HostileAdapter("tensor of 8 TB in a tiny file", "data is cut short") {
        let member = SafetensorsBuilder.member(
          AdapterBuilder.prefix + a, "F32", "[68719476736,32]", "[0,8796093022208]")
        $0.adapter.weights = SafetensorsBuilder.file("{\(member)}", [1, 2, 3, 4])
      },
      HostileAdapter("weights in U8", "is U8, allowed in an adapter are F32, BF16, F16", tensor: a) {
        $0.adapter.tensors[0] = .init(AdapterBuilder.prefix + a, "U8", [4, 32], [UInt8](repeating: 1, count: 128))
      },
      HostileAdapter("weights in F64", "is F64, allowed in an adapter are F32, BF16, F16", tensor: a) {
        $0.adapter.tensors[0] = TestModel.tensor(AdapterBuilder.prefix + a, "F64", [4, 32], seed: 1)
      },
      HostileAdapter(
        "base in F64", exitCode: 69, "is F64; adapters are merged into F32, BF16 and F16 only"
      ) { pair in
        let name = "model.layers.0.self_attn.q_proj.weight"
        pair.base.tensors[pair.base.index(of: name) ?? 0] = TestModel.tensor(name, "F64", [32, 32], seed: 1)
      }.beside { $0.base.tensors[0] = TestModel.tensor("model.embed_tokens.weight", "F64", [48, 32], seed: 1) },
      HostileAdapter(
        "base quantized by GPTQ", exitCode: 69, "is quantized (GPTQ); merge into the original 16-bit checkpoint"
      ) {
        $0.base.config = $0.base.config.map {
          $0.dropLast() + ", \"quantization_config\": {\"quant_method\": \"gptq\"}}"
        }
      },
    ]

  /// PROTO 2, `os.system`, its argument, REDUCE, STOP: never read.
  private static let pickle = (
    name: "adapter_model.bin", bytes: Array("\u{2}cos\nsystem\n(S'touch x'\ntR.".utf8)
  )

  private static let configTexts: [HostileAdapter] = [
    text("empty", "not JSON: it is an empty file") { _ in "" },
    text("an array", "is not a JSON object") { _ in "[]" },
    text("a string", "is not a JSON object") { _ in "\"LORA\"" },
    text("r twice", "key 'r' occurs twice") { $0.dropLast() + ", \"r\": 4}" },
    text("r twice by escape", "key 'r' occurs twice") { $0.dropLast() + ", \"\\u0072\": 8}" },
    text("a member twice that does not matter", "key 'runtime_config' occurs twice") {
      $0.dropLast() + ", \"runtime_config\": {}, \"runtime_config\": {}}"
    },
    text("trailing comma", "expected a key in double quotes: a trailing comma, which JSON does not allow") {
      $0.dropLast() + ",}"
    },
    text("trailing junk", "expected the end of the JSON text") { $0 + "x" },
    text("not UTF-8", "adapter_config.json: ", bytes: [0x7B, 0x22, 0xFF, 0x22, 0x3A, 0x31, 0x7D]),
    text("deep nesting", "nested deeper than the 64 levels") { _ in
      "{\"x\":" + String(repeating: "[", count: 1_000_000)
    },
    text("100 MB", "has 100000000 bytes, allowed are 16777216", bytes: [UInt8](repeating: 0x20, count: 100_000_000)),
    text("a word that is no number", "found 'N', expected NaN: JSON spells it null") {
      $0.dropLast() + ", \"x\": None}"
    },
    text("a comment", "JSON has no comments") { "// LORA\n" + $0 },
    text("a byte order mark", "the text begins with a byte-order mark") { "\u{feff}" + $0 },
    text("single quotes", "JSON has no single quotes") { $0.replacing("\"r\"", with: "'r'") },
  ]

  private static func text(
    _ name: String, _ message: String, _ change: @escaping @Sendable (String) -> String
  ) -> HostileAdapter {
    HostileAdapter(
      "adapter_config.json: \(name)", message, warning: "what it means: 'unknown'"
    ) { $0.adapter.config = Array(change($0.adapter.json).utf8) }.beside {
      $0.adapter.config = Array(
        ($0.adapter.json.dropLast()
          + ", \"unknown\": {\"of\": [1e309, null, NaN, -Infinity], \"\\ud800\": \"\\udc00\"}}\n").utf8)
    }
  }

  private static func text(_ name: String, _ message: String, bytes: [UInt8]) -> HostileAdapter {
    HostileAdapter("adapter_config.json: \(name)", message) { $0.adapter.config = bytes }
  }
}
