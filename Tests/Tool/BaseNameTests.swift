import Foundation
import JSON
import TestSupport
import Testing

/// What makes `merge` doubt that an adapter belongs to its base, and what does not.
@Suite struct BaseNameTests: MergeTesting {
  let directory: TemporaryDirectory
  let base: String

  init() throws {
    directory = try TemporaryDirectory()
    base = try TestModel.llama().write(to: directory, "base")
  }

  private func adapter(_ name: String?, _ seed: UInt64 = 100) throws -> String {
    var builder = AdapterBuilder.llama(seed: seed)
    builder.set("base_model_name_or_path", name.map { $0 == "null" ? $0 : "\"\($0)\"" })
    return try builder.write(to: directory, "adapter\(seed)")
  }

  private func warnings(
    _ name: String?, _ base: String? = nil, seed: UInt64 = 100, options: [String] = []
  ) throws -> [String] {
    if directory.exists("out") { try directory.remove("out") }
    let json = try merge(base, adapter(name, seed), options: options).json
    return (json?["warnings"]?.array ?? []).compactMap(\.string)
  }

  private static let doubt = "was trained on "

  @Test(arguments: [
    "base", "org/base", "./base", "/elsewhere/base/", "C:\\\\models\\\\base", "null", "",
    "/cache/huggingface/hub/models--org--base/snapshots/0123abc", "/x/models--base/snapshots/0123abc/",
  ])
  func sameName(_ name: String) throws { #expect(try warnings(name) == []) }

  @Test func noName() throws { #expect(try warnings(nil) == []) }

  @Test(arguments: [
    "other", "Base", "org/base-v2", "base/other", "/x/models--org--other/snapshots/base", "models--org--base",
  ])
  func otherName(_ name: String) throws {
    let found = try warnings(name.replacingOccurrences(of: "\\", with: "\\\\"))
    #expect(found.count == 1 && found.allSatisfy { $0.contains(Self.doubt) && $0.contains("'base'") }, "\(found)")
  }

  @Test func cacheEntry() throws {
    let snapshot = try TestModel.llama().write(to: directory, "models--org--base--x/snapshots/0123abc")
    for name in ["org/base--x", "base--x", "/elsewhere/base--x"] { #expect(try warnings(name, snapshot) == []) }
    #expect(try warnings("org/base", snapshot).first?.contains("'org/base--x'") == true)
    let manifest = try #require(parse(String(decoding: directory.read("out/nibble-manifest.json"), as: UTF8.self)))
    #expect(manifest["options"]?["source"]?.string == "org/base--x")
  }

  @Test func nameInTheConfiguration() throws {
    var model = TestModel.llama()
    model.config = model.config.map { "{\"_name_or_path\": \"org/Known-7B\", " + $0.dropFirst() }
    let known = try model.write(to: directory, "copy")
    #expect(try warnings("elsewhere/Known-7B", known) == [])
    #expect(try warnings("elsewhere/Unknown-7B", known).count == 1)
  }

  /// By the working directory alone.
  @Test func dot() throws {
    let named = try adapter("base")
    let other = try adapter("other", 7)
    for (path, count) in [(named, 0), (other, 1)] {
      let run = try Tool.run(
        ["merge", ".", path, "-o", directory.path("out-\(count)"), "--dry-run"],
        through: ["/bin/sh", "-c", "cd \"$0\" && exec \"$@\"", base])
      #expect(run.status == 0 && run.warnings.count == count, "\(run.error)")
    }
  }

  // MARK: - By the manifest

  private func make(_ words: String...) throws {
    let run = try Tool.run(words)
    #expect(run.status == 0, "\(run.error)")
  }

  private func options(_ name: String) throws -> JSONValue? {
    let text = String(decoding: try directory.read("\(name)/nibble-manifest.json"), as: UTF8.self)
    #expect(!text.contains(directory.path), "a path of this machine")
    return parse(text)?["options"]
  }

  @Test func followedThroughItsMaking() throws {
    let nf4 = directory.path("nf4")
    try make("quantize", base, "-o", nf4)
    #expect(try options("nf4")?["source"]?.string == "base")
    #expect(try options("nf4")?["lineage"] == nil)
    for name in ["org/base", "nf4"] { #expect(try warnings(name, nf4) == []) }
    let other = try warnings("other", nf4)
    #expect(other.count == 1 && other.allSatisfy { $0.contains("'nf4' (NF4 of 'base')") }, "\(other)")

    // A second adapter of the same base, on top of the first.
    try make("merge", nf4, adapter("base"), "-o", directory.path("merged"))
    let merged = try #require(try options("merged"))
    #expect(merged["source"]?.string == "nf4" && merged["lineage"]?.array?.compactMap(\.string) == ["base"])
    try make("convert", directory.path("merged"), "-o", directory.path("again"), "--dtype", "float32")
    for name in ["base", "nf4", "merged", "again"] {
      #expect(try warnings(name, directory.path("again"), seed: 7) == [], "\(name)")
    }
    #expect(try warnings("other", directory.path("again"), seed: 7).count == 1)
  }

  /// The same weights, but not what the adapter saw.
  @Test func trainedOnTheQuantizedOneBeside() throws {
    try make("quantize", base, "-o", directory.path("base-nf4"))
    try make("quantize", base, "-o", directory.path("small"))
    let found = try warnings("/elsewhere/base-nf4")
    #expect(
      found.count == 1 && found.allSatisfy { $0.contains("'/elsewhere/base-nf4', the NF4 of this base") }, "\(found)")
    #expect(try warnings("/elsewhere/base-nf4", options: ["--base-as-trained", "nf4"]) == [])
    #expect(try warnings("/elsewhere/base-nf4", options: ["--base-as-trained", "fp4"]).count == 1)
    // One that is called otherwise is not looked into, and one that was made from another says nothing.
    #expect(try warnings("small").first?.contains("nothing says that") == true)
    let stranger = try TestModel.llama(seed: 2).write(to: directory, "stranger")
    try make("quantize", stranger, "-o", directory.path("base-of-others"))
    #expect(try warnings("base-of-others").first?.contains("nothing says that") == true)
  }

  /// A path in a configuration is compared with the base's own, and not looked into.
  @Test func baseByAnotherPath() throws {
    try FileManager.default.createSymbolicLink(atPath: directory.path("link"), withDestinationPath: "base")
    for name in [directory.path("link"), directory.path("link/"), directory.path("base/../link")] {
      #expect(try warnings(name) == [])
    }
    _ = try directory.makeDirectory("elsewhere")
    try make("quantize", base, "-o", directory.path("elsewhere/tuned"))
    for name in ["elsewhere/tuned", "elsewhere/nothing", "elsewhere"] {
      #expect(try warnings(directory.path(name)).first?.contains("nothing says that") == true)
    }
  }

  /// A base in 4 bits cannot be brought to others: nothing is advised that is refused.
  @Test func trainedOnAnotherQuantizedOne() throws {
    let nf4 = directory.path("base-nf4")
    let fp4 = directory.path("base-fp4")
    try make("quantize", base, "-o", nf4)
    try make("quantize", base, "-o", fp4, "--scheme", "fp4")
    for name in ["x/base-fp4", fp4] {
      let found = try warnings(name, nf4)
      #expect(
        found.count == 1 && found.allSatisfy { $0.hasSuffix("the FP4 of 'base': merge it into that") }, "\(found)")
    }
    let words = ["--base-as-trained", "fp4", "-o", directory.path("no"), "--json"]
    let refused = try Tool.run(["merge", nf4, adapter("x/base-fp4")] + words)
    Refusal(status: 2, message: "option '--base-as-trained' is for a 16-bit base").check(refused, "merge")
    // The base that it was trained on.
    #expect(try warnings(fp4, fp4) == [])
  }

  @Test func namedAsFourBit() throws {
    let hint = "--base-as-trained nf4 brings"
    #expect(try warnings("unsloth/base-bnb-4bit").first?.contains(hint) == true)
    #expect(try warnings("unsloth/other").first?.contains(hint) == false)
  }

  /// A manifest from outside is no authority, and no path.
  @Test(arguments: [
    "{\"options\": {\"source\": 5, \"lineage\": {}}}", "{\"options\": [", "{\"options\": {\"source\": \"\"}}",
    "{\"options\": {\"source\": \"../../etc\", \"lineage\": [1, null, \"\\u001b[2J\"]}}",
  ])
  func hostileManifest(_ text: String) throws {
    try directory.write("base/nibble-manifest.json", Array(text.utf8))
    #expect(try warnings("base") == [])
    let found = try warnings("other")
    #expect(found.count == 1 && !(found.first ?? "").contains("\u{1B}"), "\(found)")
  }

  // MARK: - Nothing was trained

  @Test func zeroDeltas() throws {
    func found(_ change: (inout AdapterBuilder) -> Void) throws -> [String] {
      var builder = AdapterBuilder.llama()
      for index in builder.tensors.indices where builder.tensors[index].name.contains("lora_B") {
        builder.tensors[index].data = builder.tensors[index].data.map { _ in 0 }
      }
      change(&builder)
      if directory.exists("zero") { try directory.remove("zero") }
      if directory.exists("out") { try directory.remove("out") }
      let json = try merge(nil, builder.write(to: directory, "zero")).json
      return (json?["warnings"]?.array ?? []).compactMap(\.string)
    }
    let last = "model.layers.1.mlp.down_proj.lora_B.weight"
    let plain = try found { _ in }
    #expect(
      plain.count == 1 && plain.allSatisfy { $0.contains("all its deltas are zero") && $0.contains("changes nothing") })
    #expect(try found { $0.set(last, 127, -0.0) } == plain)
    #expect(try found { $0.set(last, 127, 1e-30) } == [])
    // Of a module with A zero the delta is zero too.
    let saved = try found { $0.add("model.norm.weight", [32]) }
    #expect(saved.count == 1 && saved.allSatisfy { $0.contains("only 1 tensor that it has whole or in rows") })
    let lengths = try found { builder in
      builder.set("use_dora", "true")
      for layer in 0..<2 {
        builder.add("model.layers.\(layer).self_attn.q_proj.lora_magnitude_vector", [32])
        builder.add("model.layers.\(layer).mlp.down_proj.lora_magnitude_vector", [32])
      }
    }
    #expect(lengths.count == 1 && lengths.allSatisfy { $0.contains("4 lengths of outputs (DoRA)") }, "\(lengths)")
  }

  // MARK: - Members that nobody knows

  @Test(arguments: [
    ("1", true), ("true", true), ("\"x\"", true), ("[0]", true), ("{\"a\": null}", true), ("0.5", true),
    ("null", false), ("false", false), ("[]", false), ("{}", false), ("\"\"", false), ("0", false), ("0.0", false),
  ])
  func unknownMember(_ json: String, _ isTold: Bool) throws {
    var builder = AdapterBuilder.llama()
    builder.set("rotates_weights", json)
    let found = try merge(nil, builder.write(to: directory, "odd")).json?["warnings"]?.array?.compactMap(\.string) ?? []
    #expect(found.count == (isTold ? 1 : 0) && found.allSatisfy { $0.contains("'rotates_weights'") }, "\(found)")
  }
}
