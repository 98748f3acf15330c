import Foundation
import TestSupport
import Testing

/// A model directory whose configuration or tokenizer is damaged, on the way to GGUF: converted or refused, never
/// anything else, and nothing is left of what is refused.
@Suite struct ConvertedInputTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  private static let config: KeyValuePairs<String, String> = [
    "architectures": "[\"LlamaForCausalLM\"]", "model_type": "\"llama\"", "hidden_size": "32",
    "intermediate_size": "64", "num_hidden_layers": "1", "num_attention_heads": "2", "num_key_value_heads": "1",
    "head_dim": "16", "vocab_size": "48", "max_position_embeddings": "64", "rms_norm_eps": "1e-05",
    "rope_theta": "10000.0", "tie_word_embeddings": "false", "hidden_act": "\"silu\"", "bos_token_id": "1",
    "eos_token_id": "[2, 3]", "dtype": "\"bfloat16\"", "rope_scaling": "null",
  ]

  private static func configuration(_ changed: String = "", _ value: String = "") -> [UInt8] {
    let members = config.map { "\"\($0.key)\": \($0.key == changed ? value : $0.value)" }
    return Array("{\(members.joined(separator: ", "))}".utf8)
  }

  private static let tokenizer: String = {
    let letters = (0..<45).map { "\"\(Character(UnicodeScalar(UInt8(0x41 + $0))))\":\($0)" }
      .map { $0.replacing("\"\\\"", with: "\"\\\\\"") }
    return #"""
      {"version": "1.0", "added_tokens": [{"id": 47, "content": "<|end|>", "special": true, "normalized": false,
       "lstrip": false, "rstrip": false, "single_word": false}], "normalizer": null,
       "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true}, "post_processor": null,
       "model": {"type": "BPE", "vocab": {
      """# + letters.joined(separator: ",") + #", "AB": 45, "ABC": 46}, "merges": ["A B", ["AB", "C"]]}}"#
  }()

  private func write(config: [UInt8], tokenizer: [UInt8]) throws -> String {
    try directory.write("model/config.json", making: config)
    try directory.write("model/tokenizer.json", tokenizer)
    return directory.path("model")
  }

  private func makeModel() throws -> String {
    var model = TestModel.llama(layers: 1)
    model.config = nil
    _ = try model.write(to: directory)
    return try write(config: Self.configuration(), tokenizer: Array(Self.tokenizer.utf8))
  }

  /// - Returns: whether the model was converted.
  private func convert(_ model: String, _ name: String) throws -> Bool {
    let out = directory.path("out.gguf")
    let run = try Tool.run(["convert", model, "-o", out, "--quiet"], limit: 20)
    #expect([0, 65, 66, 69].contains(run.status), "\(name): \(run.status) \(run.error)")
    #expect(run.residentBytes < 256 << 20, "\(name): \(run.residentBytes >> 20) MiB")
    expectPrintable(run.error)
    guard run.status == 0 else {
      #expect(run.errorLines.count == 1, "\(name): \(run.error)")
      #expect(try directory.names == ["model"], "\(name)")
      return false
    }
    #expect(try Tool.run("verify", out).status == 0, "\(name)")
    try directory.remove("out.gguf")
    try directory.remove("out.gguf.nibble-manifest.json")
    return true
  }

  @Test func theValidOne() throws {
    let run = try Tool.run("convert", makeModel(), "-o", directory.path("out.gguf"))
    #expect(run.status == 0, "\(run.error)")
  }

  @Test(arguments: [true, false]) func randomDamage(isConfig: Bool) throws {
    let model = try makeModel()
    var mutator = Mutator(seed: isConfig ? 11 : 12)
    var accepted = 0
    for number in 0..<120 {
      let bytes = mutator.mutated(isConfig ? Self.configuration() : Array(Self.tokenizer.utf8))
      try directory.write(isConfig ? "model/config.json" : "model/tokenizer.json", bytes)
      if try convert(model, "\(isConfig ? "config" : "tokenizer") \(number)") { accepted += 1 }
    }
    #expect(accepted > 0 && accepted < 120)
  }

  /// Each number of the configuration at the edges of what a number can be, and of another type.
  @Test(arguments: [
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "vocab_size", "max_position_embeddings", "rms_norm_eps", "rope_theta", "bos_token_id", "eos_token_id",
    "rope_scaling", "architectures", "model_type", "dtype",
  ])
  func configuration(_ key: String) throws {
    let model = try makeModel()
    let values = [
      "0", "-1", "3", "1000000000", "2147483648", "9223372036854775807", "18446744073709551616", "1e400", "1e-400",
      "0.5",
      "null", "true", "\"32\"", "[]", "[32]", "{}", "{\"rope_type\": \"llama3\", \"factor\": 1e300}",
      "{\"rope_type\": \"yarn\", \"factor\": 0}", "{\"type\": \"\\u001b\"}",
    ]
    for value in values {
      try directory.write("model/config.json", Self.configuration(key, value))
      _ = try convert(model, "\(key): \(value)")
    }
  }
}
