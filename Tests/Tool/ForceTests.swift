import Foundation
import JSON
import TestSupport
import Testing

#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// What `--force` replaces and removes, and what it leaves alone.
@Suite struct ForceTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  private func isDone(_ arguments: String..., through wrapper: [String] = []) throws -> Tool.Result {
    let run = try Tool.run(arguments, through: wrapper)
    #expect(run.status == 0, "\(arguments): \(run.error)")
    return run
  }

  // MARK: - Old output that cannot be removed

  /// By its owner it can: what was made read-only is made writable again before it goes.
  @Test(.enabled(if: Machine.canBeNobody, "\(Machine.needsOtherUser)"))
  func readOnlyOutput() throws {
    let model = try TestModel(layers: 1).write(to: directory)
    try directory.write("model/additional_chat_templates/x.jinja", making: [1])
    let parent = try directory.makeDirectory("parent")
    chmod(directory.path, 0o755)
    chmod(parent, 0o777)
    let out = parent + "/out"
    _ = try isDone("convert", model, "-o", out, through: Machine.asNobody)
    for _ in 1...2 {
      chmod(out + "/additional_chat_templates", 0o555)
      chmod(out, 0o555)
      let run = try isDone("convert", model, "-o", out, "--force", through: Machine.asNobody)
      #expect(run.warnings.isEmpty, "\(run.error)")
      #expect(try FileManager.default.contentsOfDirectory(atPath: parent) == ["out"])
    }
    _ = try isDone("verify", out)
  }

  /// Somebody else's cannot be: it is moved out of the way, and no later run is stopped by it.
  @Test(.enabled(if: Machine.canBeNobody, "\(Machine.needsOtherUser)"))
  func outputOfAnotherUser() throws {
    let model = try TestModel(layers: 1).write(to: directory)
    let parent = try directory.makeDirectory("parent")
    chmod(directory.path, 0o755)
    chmod(parent, 0o777)
    let out = parent + "/out"
    _ = try isDone("convert", model, "-o", out)
    let run = try isDone(
      "convert", model, "-o", out, "--force", "--dtype", "float32", "--json", through: Machine.asNobody)
    #expect(run.warnings.count == 1 && run.error.contains("what is left of the old output is in '.out.nibble-old'"))
    #expect(parse(run.output)?["warnings"]?.array?.last?.string?.contains("cannot remove the leftover") == true)
    for _ in 1...2 {
      #expect(try FileManager.default.contentsOfDirectory(atPath: parent).sorted() == [".out.nibble-old", "out"])
      let next = try isDone("convert", model, "-o", out, "--force", through: Machine.asNobody)
      #expect(next.warnings.isEmpty, "\(next.error)")
    }
    // Who may remove it does so in passing.
    _ = try isDone("convert", model, "-o", out, "--force")
    #expect(try FileManager.default.contentsOfDirectory(atPath: parent) == ["out"])
  }

  // MARK: - GGUF

  private func gguf() throws -> String { try directory.write("m.gguf", PlainGGUF.small.bytes) }

  @Test(arguments: [[], [1, 2, 3], Array("GGML and more".utf8), Array("notes".utf8)] as [[UInt8]])
  func whatIsNoGGUF(_ contents: [UInt8]) throws {
    let model = try gguf()
    let out = try directory.write("out.gguf", contents)
    for words in [
      ["convert", model, "-o", out], ["join", model, "-o", out], ["split", model, "-o", directory.path("out")],
    ] {
      let before = try Snapshot(directory.path)
      let run = try Tool.run(words + ["--force", "--json"])
      Refusal(status: 73, message: "already exists and is not a GGUF file").check(run, words[0])
      Refusal(status: 73, message: "already exists (use --force").check(try Tool.run(words + ["--json"]), words[0])
      #expect(try Snapshot(directory.path) == before)
    }
    try directory.write("out.gguf", PlainGGUF.small.bytes)
    _ = try isDone("convert", model, "-o", out, "--force")
  }

  /// A part that is none, of another split: found before anything is written.
  @Test func partThatIsNoGGUF() throws {
    let model = try gguf()
    try directory.write("out-00001-of-00009.gguf", [1])
    let before = try Snapshot(directory.path)
    let words = ["split", model, "-o", directory.path("out"), "--max-shard-size", "1kB"]
    let run = try Tool.run(words + ["--force", "--json"])
    Refusal(status: 73, message: "already exists and is not a GGUF file").check(run, "split")
    #expect(try Snapshot(directory.path) == before)
  }

  private func parts(_ stem: String) throws -> [String] {
    try directory.names.filter { $0.hasPrefix(stem + "-") || $0.hasPrefix(stem + ".") }
  }

  /// Four tensors of 64 KiB.
  private func large() throws -> String {
    var model = PlainGGUF.small
    model.tensors = (0..<4).map { PlainGGUF.Tensor("t\($0)", [1 << 14], PlainGGUF.ramp(1 << 16, $0)) }
    return try directory.write("m.gguf", model.bytes)
  }

  @Test func otherCounts() throws {
    let path = try large()
    // Names that are near.
    let strangers = [
      "out-1-of-2.gguf", "out-00003-of-00002.gguf", "outer-00001-of-00004.gguf", "out-x-00001-of-00004.gguf",
      "out-00001-of-00004.gguf.txt", "out-00001-of-00004.safetensors",
    ]
    for name in strangers { try directory.write(name, Array(PlainGGUF.small.bytes)) }
    func split(_ size: String, _ count: Int) throws {
      let run = try isDone("split", path, "-o", directory.path("out"), "--max-shard-size", size, "--force", "--json")
      let names = count == 1 ? ["out.gguf"] : (1...count).map { "out-0000\($0)-of-0000\(count).gguf" }
      let sidecar = names[0] + ".nibble-manifest.json"
      #expect(try parts("out").filter { !strangers.contains($0) } == (names + [sidecar]).sorted())
      #expect(parse(run.output)?["output"]?.string == directory.path(names[0]))
      _ = try isDone("verify", directory.path(names[0]))
    }
    try split("70kB", 4)
    try split("140kB", 2)
    try split("70kB", 4)
    try split("5GB", 1)
    for name in strangers { #expect(directory.exists(name)) }
  }

  /// Neither what is being read nor, without `--force`, anything at all.
  @Test func otherCountsThatStay() throws {
    let path = try large()
    let out = directory.path("out")
    _ = try isDone("split", path, "-o", out, "--max-shard-size", "70kB")
    _ = try isDone("split", path, "-o", out, "--max-shard-size", "140kB")
    #expect(try parts("out").count == 4 + 2 + 2)
    let first = directory.path("out-00001-of-00004.gguf")
    let run = try isDone("split", first, "-o", out, "--max-shard-size", "140kB", "--force")
    #expect(run.error.contains("not removed, since they are what was read: 'out-00001-of-00004.gguf'"))
    _ = try isDone("verify", first)
    // The model and its split may lie side by side.
    _ = try isDone("join", first, "-o", directory.path("out.gguf"), "--force")
    #expect(try parts("out").count == 4 + 2 + 2 + 2)
  }

  /// The model in one file and its parts are the same model: whichever is written, the old form of it goes.
  @Test(arguments: ["convert", "split"]) func oneFileAndParts(_ verb: String) throws {
    let path = try large()
    let manifest = ".nibble-manifest.json"
    let out = directory.path("out.gguf")
    for name in ["outer.gguf", "out.gguf.txt", "out-x.gguf"] { try directory.write(name, PlainGGUF.small.bytes) }
    let others = try parts("out")
    _ = try isDone("convert", path, "-o", out)
    let run = try isDone(verb, path, "-o", out, "--max-shard-size", "70kB", "--force")
    #expect(run.warnings.isEmpty, "\(run.error)")
    let names = (1...4).map { "out-0000\($0)-of-00004.gguf" }
    #expect(try parts("out") == (others + names + [names[0] + manifest]).sorted())
    _ = try isDone("convert", path, "-o", out, "--force")
    #expect(try parts("out") == (others + ["out.gguf", "out.gguf" + manifest]).sorted())
    _ = try isDone("verify", out)
    #expect(directory.exists("outer.gguf"))
  }

  /// Neither what is read, nor what is no GGUF, nor without `--force`.
  @Test func oneFileAndPartsThatStay() throws {
    let path = try large()
    let out = directory.path("out.gguf")
    _ = try isDone("convert", path, "-o", out)
    _ = try isDone("split", path, "-o", out, "--max-shard-size", "70kB")
    #expect(try parts("out").count == 2 + 5)
    let kept = "not removed, since they are what was read: "
    let split = try isDone("split", out, "-o", out, "--max-shard-size", "70kB", "--force")
    #expect(split.error.contains(kept + "'out.gguf'"), "\(split.error)")
    let whole = try isDone("convert", directory.path("out-00001-of-00004.gguf"), "-o", out, "--force")
    #expect(whole.error.contains(kept + "'out-00001-of-00004.gguf'"), "\(whole.error)")
    #expect(try parts("out").count == 2 + 5)
    for (name, words) in [
      ("new.gguf", ["split", path, "-o", directory.path("new"), "--max-shard-size", "70kB"]),
      ("new-00001-of-00009.gguf", ["convert", path, "-o", directory.path("new.gguf")]),
    ] {
      try directory.write(name, Array("notes".utf8))
      let before = try Snapshot(directory.path)
      let run = try Tool.run(words + ["--force", "--json"])
      Refusal(status: 73, message: "already exists and is not a GGUF file").check(run, words[0])
      #expect(try Snapshot(directory.path) == before)
      try directory.remove(name)
    }
  }

  // MARK: - A manifest whose model is gone

  @Test func orphan() throws {
    let model = try gguf()
    let out = directory.path("out.gguf")
    let manifest = "out.gguf.nibble-manifest.json"
    _ = try isDone("convert", model, "-o", out)
    // Not while it is there.
    let before = try Snapshot(directory.path)
    Refusal(status: 73, message: "already exists (use --force").check(
      try Tool.run("convert", model, "-o", out, "--json"), "convert")
    #expect(try Snapshot(directory.path) == before)
    try directory.remove("out.gguf")
    _ = try isDone("convert", model, "-o", out)
    _ = try isDone("verify", out)
    // Nor anything else of that name.
    try directory.remove("out.gguf")
    try directory.write(manifest, Array("notes".utf8))
    let refused = try Tool.run("convert", model, "-o", out, "--json")
    Refusal(status: 73, message: "already exists (use --force").check(refused, "convert")
    #expect(try directory.read(manifest) == Array("notes".utf8))
  }

  @Test func orphanOfASplit() throws {
    let model = try large()
    _ = try isDone("split", model, "-o", directory.path("out"), "--max-shard-size", "70kB")
    let parts = try parts("out").filter { $0.hasSuffix(".gguf") }
    try #require(parts.count > 1)
    for part in parts { try directory.remove(part) }
    _ = try isDone("split", model, "-o", directory.path("out"), "--max-shard-size", "70kB")
  }
}
