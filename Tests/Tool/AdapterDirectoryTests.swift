import Foundation
import JSON
import Safetensors
import TestSupport
import Testing

/// An adapter of PEFT where a model is wanted: it stays an adapter, or is refused for what it is.
@Suite struct AdapterDirectoryTests: MergeTesting {
  let directory: TemporaryDirectory
  let base: String
  let adapter: String

  init() throws {
    directory = try TemporaryDirectory()
    base = try TestModel.llama().write(to: directory, "base")
    var builder = AdapterBuilder.llama(type: "BF16")
    builder.files = [("README.md", Array("of the adapter".utf8)), ("tokenizer.json", Array("{}".utf8))]
    adapter = try builder.write(to: directory)
  }

  private static let wayOut = "merge it into its base and quantize that"

  private static let bothWeights = "the weights before and after training"

  private struct Row: Sendable {
    var words: [String]
    var status: Int32
    var message: String

    /// - Parameter line: `A` stands for the adapter and `B` for its base.
    init(_ line: String, _ status: Int32, _ message: String) {
      words = line.split(separator: " ").map(String.init)
      self.status = status
      self.message = message
    }
  }

  private static let refused: [Row] = [
    Row("quantize A -o out", 69, wayOut),
    Row("quantize A -o out --scheme fp4", 69, wayOut),
    Row("quantize A/adapter_model.safetensors -o out", 69, wayOut),
    Row("quantize A -o out.gguf --scheme q4_0", 69, wayOut),
    Row("split A -o out --max-shard-size 2MiB", 69, "PEFT reads it from one file"),
    Row("join A -o out", 69, "PEFT reads it from one file"),
    Row("fit A", 69, "name the one that it was trained on"),
    Row("extract-lora A B --rank 4 -o out", 69, bothWeights),
    Row("extract-lora B A --rank 4 -o out", 69, bothWeights),
    Row("merge A A -o out", 65, "the first path is that of the model"),
    Row("convert A -o out.gguf", 2, "--base"),
  ]

  @Test(arguments: refused.indices)
  func isRefused(_ number: Int) throws {
    let (words, status, message) = (
      Self.refused[number].words, Self.refused[number].status, Self.refused[number].message
    )
    // Some trainers put the model's configuration beside it.
    for hasConfiguration in [false, true] {
      if hasConfiguration { try directory.write("adapter/config.json", directory.read("base/config.json")) }
      let before = try Snapshot(directory.path)
      let run = try Tool.run(words.map(place))
      #expect(
        run.status == status && run.error.contains(message) && run.error.contains("is an adapter"), "\(run.error)")
      #expect(run.errorLines.count == 1 && run.warnings.isEmpty, "\(run.error)")
      #expect(try Snapshot(directory.path) == before)
    }
  }

  private func place(_ word: String) -> String {
    if word.hasPrefix("A") { return adapter + word.dropFirst() }
    return word == "B" ? base : word.hasPrefix("out") ? directory.path(word) : word
  }

  /// What is done to the base and not to the adapter.
  @Test(arguments: [["quantize", "B", "-o", "out"], ["split", "B", "-o", "out"], ["join", "B", "-o", "out"]])
  func modelIsTaken(_ words: [String]) throws {
    let run = try Tool.run(words.map(place))
    #expect(run.status == 0, "\(run.error)")
  }

  @Test(arguments: [["inspect", "A"], ["verify", "A"], ["diff", "A", "A"]])
  func isRead(_ words: [String]) throws {
    let run = try Tool.run(words.map(place))
    #expect(run.status == 0, "\(run.error)")
    let edited = try Tool.run("edit", adapter + "/adapter_model.safetensors", "--set", "a=b")
    #expect(edited.status == 0, "\(edited.error)")
  }

  // MARK: - Another dtype

  @Test(arguments: [false, true])
  func convertedStaysAnAdapter(_ hasConfiguration: Bool) throws {
    if hasConfiguration { try directory.write("adapter/config.json", directory.read("base/config.json")) }
    let run = try Tool.run("convert", adapter, "-o", directory.path("out"), "--dtype", "float16", "--json")
    #expect(run.status == 0 && run.error.isEmpty, "\(run.error)")
    var names = [
      "README.md", "adapter_config.json", "adapter_model.safetensors", "checksums.xxh128", "nibble-manifest.json",
      "tokenizer.json",
    ]
    if hasConfiguration { names.append("config.json") }
    #expect(try Set(FileManager.default.contentsOfDirectory(atPath: directory.path("out"))) == Set(names))
    #expect(Set(parse(run.output)?["files"]?.array?.compactMap(\.string) ?? []) == Set(names))
    for name in names.filter({ $0.hasSuffix("config.json") }) {
      #expect(try directory.read("out/\(name)") == directory.read("adapter/\(name)"))
    }
    let before = try SafetensorsHeader(ofFile: directory.read("adapter/adapter_model.safetensors"))
    let after = try SafetensorsHeader(ofFile: directory.read("out/adapter_model.safetensors"))
    #expect(after.tensors.map(\.name) == before.tensors.map(\.name))
    #expect(after.tensors.allSatisfy { $0.type == .f16 } && before.tensors.allSatisfy { $0.type == .bf16 })
    #expect(try Tool.run("verify", directory.path("out")).status == 0)
    // Values around one have more digits in float16: nothing is lost.
    try merge(nil, adapter, to: "one")
    try merge(nil, directory.path("out"), to: "other")
    #expect(try directory.read("one/model.safetensors") == directory.read("other/model.safetensors"))
  }

  @Test func beyondFloat16() throws {
    var builder = AdapterBuilder.llama()
    let name = "model.layers.1.mlp.down_proj.lora_B.weight"
    builder.set(name, 3, 65520)
    let large = try builder.write(to: directory, "large")
    let run = try Tool.run("convert", large, "-o", directory.path("out"), "--dtype", "float16")
    #expect(run.status == 65 && run.error.contains(name) && run.error.contains("element 3"), "\(run.error)")
    builder.set(name, 3, 65504)
    let twin = try Tool.run(
      "convert", builder.write(to: directory, "twin"), "-o", directory.path("out"), "--dtype", "float16")
    #expect(twin.status == 0, "\(twin.error)")
  }

  // MARK: - Schemes of the other kind of output

  @Test func schemeOfTheOtherKind() throws {
    let file = "is written as a GGUF file: the name of the output must end in .gguf"
    for scheme in ["q4_k_m", "q8_0", "Q4_K_M"] {
      try refuse(2, "scheme '\(scheme)' \(file)", adapter, options: ["--scheme", scheme])
    }
    for scheme in ["nf4", "fp4"] {
      let run = try Tool.run("merge", base, adapter, "-o", directory.path("out.gguf"), "--scheme", scheme)
      #expect(run.status == 2 && run.error.contains("a GGUF file needs a scheme of llama.cpp"), "\(run.error)")
    }
    try refuse(2, "did you mean 'nf4'?", adapter, options: ["--scheme", "nf5"])
    try merge(nil, adapter, options: ["--scheme", "nf4"])
  }
}
