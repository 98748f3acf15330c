import Foundation
import JSON
import TestSupport
import Testing

/// An index that is lost, or names files that are not there: where the numbers of the shards say that none is missing,
/// their headers count, and whoever checks what loaders need says so.
@Suite struct LostIndexTests {
  let directory: TemporaryDirectory
  let model: String
  static let index = "model.safetensors.index.json"

  init() throws {
    directory = try TemporaryDirectory()
    let whole = TestModel.llama()
    let half = whole.tensors.count / 2
    let shards = [Array(whole.tensors[..<half]), Array(whole.tensors[half...])]
    model = try whole.write(to: directory, "model", shards: shards)
    _ = try whole.write(to: directory, "good", shards: shards)
  }

  /// What may become of the index, and what is said of it.
  enum Loss: String, CaseIterable {
    case gone, renamedShards, otherCount

    var message: String { self == .gone ? "is missing; the 2 shards are complete" : "which is not there; the 2 shards" }
  }

  private func lose(_ loss: Loss) throws {
    let path = "model/" + Self.index
    switch loss {
    case .gone: try directory.remove(path)
    case .otherCount:
      let text = String(decoding: try directory.read(path), as: UTF8.self)
      try directory.write(path, Array(text.replacing("-of-00002", with: "-of-00003").utf8))
    case .renamedShards:
      for number in 1...2 {
        let name = "-0000\(number)-of-00002.safetensors"
        try FileManager.default.moveItem(
          atPath: directory.path("model/model" + name), toPath: directory.path("model/pytorch_model" + name))
      }
    }
  }

  @Test(arguments: Loss.allCases)
  func headersCount(_ loss: Loss) throws {
    try lose(loss)
    for (words, name) in [
      (["convert", model], "convert"), (["quantize", model], "quantize"), (["split", model], "split"),
      (["join", model], "join"),
    ] {
      let run = try Tool.run(words + ["-o", directory.path(name)])
      #expect(run.status == 0 && run.error.contains(loss.message), "\(run.error)")
      let good = try Tool.run([words[0], directory.path("good"), "-o", directory.path("good-" + name)])
      #expect(good.status == 0 && !good.error.contains("shards are complete"))
      #expect(
        try directory.read(name + "/model.safetensors") == directory.read("good-\(name)/model.safetensors"), "\(name)")
      #expect(try Tool.run("verify", directory.path(name)).status == 0)
    }
    let inspect = try Tool.run("inspect", model, "--json")
    #expect(inspect.status == 0 && inspect.error.contains(loss.message))
    #expect(parse(inspect.output)?["tensors"]?.array?.count == TestModel.llama().tensors.count)
    #expect(try Tool.run("diff", model, directory.path("good")).status == 0)
  }

  @Test(arguments: Loss.allCases)
  func merge(_ loss: Loss) throws {
    try lose(loss)
    let adapter = try AdapterBuilder.llama().write(to: directory)
    for base in ["model", "good"] {
      let run = try Tool.run("merge", directory.path(base), adapter, "-o", directory.path("merged-" + base))
      #expect(run.status == 0 && run.error.contains(loss.message) == (base == "model"), "\(run.error)")
    }
    #expect(
      try directory.read("merged-model/model.safetensors") == directory.read("merged-good/model.safetensors"))
  }

  /// No loader takes it.
  @Test(arguments: Loss.allCases)
  func verify(_ loss: Loss) throws {
    #expect(try Tool.run("verify", model).status == 0)
    try lose(loss)
    let run = try Tool.run("verify", model, "--json")
    let problems = parse(run.output)?["problems"]?.array ?? []
    #expect(run.status == 1 && problems.count == 1)
    #expect(problems.first?["file"]?.string == Self.index)
    #expect(problems.first?["problem"]?.string?.contains(loss.message) == true, "\(run.output)")
    #expect(!run.error.contains(loss.message))
  }

  @Test func verifyWithManifest() throws {
    let out = directory.path("out")
    #expect(try Tool.run("split", model, "-o", out, "--max-shard-size", "10kB").status == 0)
    try directory.remove("out/" + Self.index)
    let run = try Tool.run("verify", out)
    #expect(run.status == 1 && run.output.contains("\(Self.index): is missing\n1 problem:"), "\(run.output)")
  }

  /// One that is not complete, or not the only one, is refused as before.
  @Test(arguments: [true, false])
  func notComplete(_ isGone: Bool) throws {
    if isGone { try lose(.gone) }
    try FileManager.default.removeItem(atPath: directory.path("model/model-00002-of-00002.safetensors"))
    let message = isGone ? "holds shard 1 of 2 but no '\(Self.index)'" : "the file is missing; '\(Self.index)' puts"
    try Refusal(status: 66, message: message).check(model, in: directory)
  }

  /// The index's own shard is there beside a complete set of others, as Meta's files lie beside transformers'.
  @Test func anotherSet() throws {
    for number in 1...2 {
      try directory.write(
        "model/consolidated-0000\(number)-of-00002.safetensors",
        SafetensorsBuilder([TestModel.tensor("x\(number)", "F32", [1], seed: 1)]).bytes)
    }
    #expect(try Tool.run("inspect", model).status == 0)
    try directory.remove("model/model-00002-of-00002.safetensors")
    try Refusal(status: 66, message: "the file is missing; '\(Self.index)' puts").check(model, in: directory)
  }
}
