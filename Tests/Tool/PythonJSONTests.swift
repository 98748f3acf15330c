import Foundation
import JSON
import TestSupport
import Testing

/// A model whose configuration, tokenizer and generation settings have what Python writes and RFC 8259 does not know:
/// every verb takes it, and what is written anew has the same values.
@Suite struct PythonJSONTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  private static let odd = #"""
    "time_step_limit": [0.0, Infinity], "odd": {"nan": NaN, "low": -Infinity, "large": 1e400, "mark": "a\ud83d",
    "\udc00": {"\ud800": [NaN]}, "\u00e9": "\ud83d\ude00"}, "1": 1.50
    """#

  private static let config: String = #"""
    {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32, "intermediate_size": 64,
    "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "vocab_size": 48,
    "max_position_embeddings": 64, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "tie_word_embeddings": false,
    "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": 2, "dtype": "bfloat16", "rope_scaling": null,

    """# + odd + "}\n"

  private static let tokenizer: String = {
    return #"""
      {"version": "1.0", "odd": [NaN, "\ud800"], "\udc00": {}, "added_tokens": [], "normalizer": null,
       "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true}, "post_processor": null,
       "model": {"type": "BPE", "\ud800": Infinity, "vocab": {
      """# + (0..<26).map { "\"\(Character(UnicodeScalar(UInt8(0x61 + $0))))\":\($0)" }.joined(separator: ",") + ","
        + (26..<48).map { "\"a\(Character(UnicodeScalar(UInt8(0x61 + $0 - 26))))\":\($0)" }.joined(separator: ",")
        + #"}, "merges": ["a a"]}}"#
  }()

  private static let sideFiles: [(name: String, text: String)] = [
    ("tokenizer.json", tokenizer),
    ("tokenizer_config.json", #"{"model_max_length": Infinity, "note": "\ud800", "bos_token": "b", "\udfff": NaN}"#),
    ("special_tokens_map.json", #"{"bos_token": "b", "note": "\ud800"}"#),
    ("generation_config.json", #"{"temperature": Infinity, "typical_p": NaN, "note": "\udfff"}"#),
  ]

  private func makeModel(_ sideFiles: [(name: String, text: String)] = Self.sideFiles) throws -> String {
    var model = TestModel.llama()
    model.config = Self.config
    model.sideFiles = sideFiles
    return try model.write(to: directory)
  }

  private func object(_ path: String) throws -> JSONObject {
    try #require(try JSONValue(parsing: directory.read(path), .python).object)
  }

  /// The configuration has every member of the source's with its value, but for those that the verb is about.
  private func expectSame(_ name: String, but changed: Set<String> = []) throws {
    let source = try object("model/config.json")
    let written = try object("\(name)/config.json")
    for (key, value) in source.members where !changed.contains(key) {
      #expect(written[key] == value, "\(name): \(key)")
    }
    let text = String(decoding: try directory.read("\(name)/config.json"), as: UTF8.self)
    for part in ["Infinity", "-Infinity", "NaN", "1e400", #""a\ud83d""#, #""\udc00": {"#, #""\ud800": ["#, "1.50"] {
      #expect(text.contains(part), "\(name): \(part)")
    }
    for file in Self.sideFiles {
      #expect(try directory.read("\(name)/\(file.name)") == Array(file.text.utf8), "\(name): \(file.name)")
    }
    let verified = try Tool.run("verify", directory.path(name))
    #expect(verified.status == 0, "\(name): \(verified.output)\(verified.error)")
  }

  private func run(_ words: String...) throws {
    let run = try Tool.run(words)
    #expect(run.status == 0, "\(words): \(run.error)")
  }

  @Test func directories() throws {
    let model = try makeModel()
    var builder = AdapterBuilder.llama()
    builder.set("odd", #"[NaN, Infinity, -Infinity, "\ud800"]"#)
    builder.files = [Self.sideFiles[3]].map { ($0.name, Array($0.text.utf8)) }
    let adapter = try builder.write(to: directory)
    try run("quantize", model, "-o", directory.path("nf4"))
    try expectSame("nf4")
    try run("convert", model, "-o", directory.path("f16"), "--dtype", "float16")
    try expectSame("f16", but: ["dtype"])
    try run("convert", directory.path("nf4"), "-o", directory.path("plain"))
    try expectSame("plain")
    try run("merge", model, adapter, "-o", directory.path("merged"))
    try expectSame("merged")
    try run("split", model, "-o", directory.path("parts"), "--max-shard-size", "10kB")
    try expectSame("parts")
    #expect(try object("nf4/config.json")["quantization_config"]?.object != nil)
    try run("inspect", adapter)
    for verb in ["inspect", "verify", "fit"] { try run(verb, model) }
    try run("diff", model, directory.path("plain"), "--json", "--tensor", "*norm*")
  }

  /// What GGUF has a key for goes there and comes back.
  @Test func gguf() throws {
    let model = try makeModel()
    try run("convert", model, "-o", directory.path("m.gguf"))
    try run("quantize", model, "-o", directory.path("q.gguf"), "--scheme", "q8_0")
    try run("convert", directory.path("m.gguf"), "-o", directory.path("back"))
    #expect(try object("back/generation_config.json")["temperature"]?.number?.text == "Infinity")
    #expect(try object("back/config.json")["hidden_size"] == 32)
    for path in ["m.gguf", "q.gguf", "back"] { try run("verify", directory.path(path)) }
    try run("inspect", directory.path("m.gguf"), "--metadata", "--json")
  }

  /// GGUF's texts are UTF-8: what would have to be one of them is refused, what need not is not in the way.
  @Test(arguments: [
    (1, #"{"chat_template": "\ud800"}"#, #"{"chat_template": "\ud83d\ude00"}"#, "'chat_template'"),
    (1, #"{"bos_token": {"content": "\ud800"}}"#, #"{"bos_token": {"content": "b"}}"#, "'bos_token'"),
    (1, #"{"extra_special_tokens": ["\ud800"]}"#, #"{"extra_special_tokens": ["b"]}"#, "'extra_special_tokens'"),
    (0, tokenizer.replacing("\"b\":1", with: "\"\\ud800\":1"), tokenizer, "token 1"),
    (
      0, tokenizer.replacing("\"added_tokens\": []", with: #""added_tokens": [{"id": 47, "content": "\ud800"}]"#),
      tokenizer.replacing("\"added_tokens\": []", with: #""added_tokens": [{"id": 47, "content": "av"}]"#),
      "added token 0"
    ),
  ])
  func textOfGGUF(_ row: (file: Int, bad: String, good: String, what: String)) throws {
    var files = Self.sideFiles
    files[row.file].text = row.bad
    let name = files[row.file].name
    let bad = try Tool.run("convert", makeModel(files), "-o", directory.path("m.gguf"), "--quiet")
    let message = "\(name): \(row.what) has half of a surrogate pair, which the UTF-8 of GGUF cannot hold"
    #expect(bad.status == 69 && bad.error == "nibble: error: \(message)\n", "\(bad.error)")
    files[row.file].text = row.good
    try run("convert", makeModel(files), "-o", directory.path("m.gguf"))
  }

  /// What the tool computes with is a number, and what only Nibble writes is JSON.
  @Test func computedWith() throws {
    let model = try makeModel()
    func refuse(_ status: Int32, _ message: String, _ words: String...) throws {
      let run = try Tool.run(words)
      #expect(run.status == status && run.error.contains(message), "\(words): \(run.status) \(run.error)")
    }
    try directory.write(
      "model/config.json",
      Array(Self.config.replacing("\"rope_theta\": 10000.0", with: "\"rope_theta\": Infinity").utf8))
    try refuse(65, "Infinity", "convert", model, "-o", directory.path("m.gguf"))
    try directory.write(
      "model/config.json", Array(Self.config.replacing("\"hidden_size\": 32", with: "\"hidden_size\": NaN").utf8))
    try refuse(65, "NaN", "fit", model + "/config.json")
    try directory.write("model/config.json", Array(Self.config.utf8))
    try run("quantize", model, "-o", directory.path("nf4"))
    let manifest = String(decoding: try directory.read("nf4/nibble-manifest.json"), as: UTF8.self)
    try directory.write(
      "nf4/nibble-manifest.json", Array(manifest.replacing("\"options\": {", with: "\"options\": {\"x\": NaN, ").utf8))
    let verified = try Tool.run("verify", directory.path("nf4"))
    #expect(verified.status == 1 && verified.output.contains("JSON has no NaN"), "\(verified.output)")
  }
}
