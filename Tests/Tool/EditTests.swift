import Foundation
import JSON
import TestSupport
import Testing

#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// `nibble edit` as a process: what it prints, and what is left when it is stopped anywhere.
@Suite struct EditTests {
  let directory: TemporaryDirectory
  let path: String

  init() throws {
    directory = try TemporaryDirectory()
    path = try directory.write("m.gguf", PlainGGUF.small.bytes)
  }

  private static func named(_ name: String) -> [UInt8] {
    var model = PlainGGUF.small
    model["general.name"] = .text(name)
    return model.bytes
  }

  /// As long as the old one, and longer.
  static let names = ["tuny", "a name that is longer than all the padding there is"]

  // MARK: - What it says

  @Test func text() throws {
    let dry = try Tool.run("edit", path, "--set", "general.name=tuny", "--remove", "llama.rope.freq_base", "--dry-run")
    #expect(dry.status == 0 && dry.error == "")
    #expect(dry.output.contains("general.name: string 'tiny' -> string 'tuny'\n"), "\(dry.output)")
    #expect(dry.output.contains("llama.rope.freq_base: removed, was float32 '10000.0'\n"))
    #expect(dry.output.hasSuffix("would write a whole new file (1.4 kB)\n"), "\(dry.output)")
    #expect(try directory.read("m.gguf") == PlainGGUF.small.bytes)
    let run = try Tool.run(
      "edit", path, "--set", "general.name=tuny", "--rename=llama.context_length=llama.context_LENGTH")
    #expect(run.status == 0 && run.output.contains("llama.context_length is now llama.context_LENGTH\n"))
    #expect(run.output.hasSuffix("m.gguf: wrote the header in place (\(PlainGGUF.small.header.count) B)\n"))
  }

  /// Templates are too long for a command line, and have quotes and line ends.
  @Test func valueOfAFile() throws {
    let template = "{% for m in messages %}\n'u32:7' \"@\"\n{% endfor %}\n"
    let file = try directory.write("t.jinja", Array(template.utf8))
    func value(_ key: String) throws -> JSONValue? {
      try parse(Tool.run("inspect", path, "--metadata", "--json").output)?["metadata"]?[key]
    }
    let run = try Tool.run("edit", path, "--set", "tokenizer.chat_template=@\(file)", "--set", "general.name=@\(file)")
    #expect(run.status == 0, "\(run.error)")
    #expect(try value("tokenizer.chat_template")?.string == template)
    #expect(try value("general.name")?.string == template)
    let number = try directory.write("number", Array("4096\n".utf8))
    #expect(try Tool.run("edit", path, "--set", "llama.context_length=@\(number)").status == 0)
    #expect(try value("llama.context_length")?.int == 4096)
    // A text that begins so, and none from a file.
    #expect(try Tool.run("edit", path, "--set", "general.name=@@here").status == 0)
    #expect(try value("general.name")?.string == "@here")
    let before = try directory.read("m.gguf")
    let missing = try Tool.run("edit", path, "--set", "general.name=@\(directory.path("none"))", "--json")
    Refusal(status: 66, message: "none: cannot open").check(missing, "edit")
    let bytes = try directory.write("bytes", [0xFF, 0xFE, 0])
    let binary = try Tool.run("edit", path, "--set", "general.name=@\(bytes)", "--json")
    Refusal(status: 65, message: "is not UTF-8, as a value of 'general.name' must be").check(binary, "edit")
    let nothing = try Tool.run("edit", path, "--set", "general.name=@", "--json")
    Refusal(status: 2, message: "'general.name=@' names no file").check(nothing, "edit")
    #expect(try directory.read("m.gguf") == before)
  }

  @Test func json() throws {
    let run = try Tool.run("edit", path, "--set=general.architecture=qwen2", "--set", "a\u{1b}=u8:1", "--json")
    #expect(run.status == 0 && run.warnings.count == 1)
    let json = try #require(parse(run.output))
    #expect(
      json.object?.keys == ["path", "container", "changes", "headerOnly", "bytesOut", "manifest", "warnings"])
    #expect(json["container"]?.string == "gguf" && json["headerOnly"]?.bool != nil)
    let changes = try #require(json["changes"]?.array)
    #expect(changes.map { $0["key"]?.string } == ["general.architecture", "a\u{1b}"])
    #expect(changes[0]["before"]?["value"]?.string == "llama" && changes[0]["after"]?["type"]?.string == "string")
    #expect(changes[1]["before"]?.isNull == true && changes[1]["newKey"]?.isNull == true)
    expectPrintable(run.output)
    expectPrintable(run.error)
  }

  @Test(arguments: [
    (["m.gguf"], Int32(2), "nothing to do: --set, --remove or --rename is missing"),
    (["m.gguf", "--remove", "general.nam"], 2, "there is no key 'general.nam'; did you mean 'general.name'?"),
    (["m.gguf", "--set", "split.count=2"], 2, "'split.count' cannot be edited"),
    (["missing.gguf", "--set", "a=b"], 66, "missing.gguf: cannot open: No such file or directory"),
    (["empty", "--set", "a=b"], 65, "empty: is a directory, expected a regular file"),
    (["cut.gguf", "--set", "a=b"], 65, "cut.gguf: tensor 'output.weight': data is cut short"),
    (["link.gguf", "--set", "a=b"], 73, "name that file itself"),
  ])
  func refused(_ words: [String], _ status: Int32, _ message: String) throws {
    _ = try directory.makeDirectory("empty")
    try directory.write("cut.gguf", Array(PlainGGUF.small.bytes.dropLast(40)))
    try FileManager.default.createSymbolicLink(atPath: directory.path("link.gguf"), withDestinationPath: "m.gguf")
    let before = try Snapshot(directory.path)
    let run = try Tool.run(["edit", directory.path(words[0])] + words.dropFirst() + ["--json"])
    Refusal(status: status, message: message).check(run, "edit")
    #expect(try Snapshot(directory.path) == before)
  }

  /// Whoever may not write the file may not replace it either.
  @Test(.enabled(if: Machine.canBeNobody, "\(Machine.needsOtherUser)"), arguments: names)
  func readOnly(_ name: String) throws {
    #expect(chmod(path, 0o444) == 0 && chmod(directory.path, 0o777) == 0)
    let run = try Tool.run(["edit", path, "--set", "general.name=\(name)", "--json"], through: Machine.asNobody)
    Refusal(status: 73, message: "cannot open it for writing: Permission denied").check(run, "edit")
    #expect(try directory.read("m.gguf") == PlainGGUF.small.bytes)
  }

  // MARK: - What no loader takes

  private static let doubt = "no loader takes the model: "

  /// Said, and edited all the same.
  private func doubts(_ words: String...) throws -> [String] {
    let run = try Tool.run(["edit"] + words + ["--json"])
    #expect(run.status == 0, "\(run.error)")
    let warnings = try #require(parse(run.output)?["warnings"]?.array).compactMap(\.string)
    #expect(warnings.count == run.warnings.count)
    return warnings.filter { $0.hasPrefix(Self.doubt) }
  }

  @Test func tensorsThatAreMissing() throws {
    var model = TestModel.llama()
    let whole = try model.write(to: directory, "whole") + "/model.safetensors"
    #expect(try doubts(whole, "--set", "a=b") == [])
    for name in ["model.layers.1.mlp.up_proj.weight", "model.layers.0.self_attn.q_proj.weight"] {
      model.tensors.remove(at: try #require(model.index(of: name)))
    }
    let part = try model.write(to: directory, "part") + "/model.safetensors"
    for words in [["--set", "a=b", "--dry-run"], ["--set", "a=b"], ["--remove", "a"]] {
      let run = try Tool.run(["edit", part] + words)
      #expect(run.status == 0 && run.warnings.count == 1, "\(run.error)")
      #expect(run.error.contains(Self.doubt) && run.error.contains("'model.layers.1.mlp.up_proj.weight'"))
      #expect(run.error.contains("(and 1 more fault)"), "\(run.error)")
    }
    // By itself it is held to nothing, nor beside the configuration of a model that it is no file of.
    let lone = try directory.write("lone.safetensors", directory.read("part/model.safetensors"))
    #expect(try doubts(lone, "--set", "a=b") == [])
    try directory.write("part/other.safetensors", directory.read("part/model.safetensors"))
    #expect(try doubts(directory.path("part/other.safetensors"), "--set", "a=b") == [])
  }

  @Test func architectureThatIsMissing() throws {
    #expect(try doubts(path, "--set", "general.name=x") == [])
    let found = try doubts(path, "--remove", "general.architecture")
    #expect(found.count == 1 && found.allSatisfy { $0.contains("'general.architecture' is missing") }, "\(found)")
    #expect(try doubts(path, "--set", "general.name=y").count == 1)
    #expect(try doubts(path, "--set", "general.type=str:imatrix", "--dry-run") == [])
    #expect(try doubts(path, "--set", "general.architecture=str:llama") == [])
    #expect(try doubts(path, "--set", "general.name=z") == [])
  }

  // MARK: - Stopped anywhere

  /// Killed at each call that changes something: the file is the old one or the new one, or the next edit makes it so.
  @Test(
    .enabled(if: Machine.canTrace, "\(Machine.needsStrace)"), arguments: names,
    ["fsync", "pwrite64", "unlink,unlinkat", "linkat", "renameat"])
  func killed(_ name: String, _ call: String) throws {
    let join = try Tool.run("join", path, "-o", directory.path("j.gguf"))
    try #require(join.status == 0, "\(join.error)")
    let manifest = try directory.read("j.gguf.nibble-manifest.json")
    for count in 1..<30 {
      try directory.write("j.gguf", PlainGGUF.small.bytes)
      try directory.write("j.gguf.nibble-manifest.json", manifest)
      let run = try ToolProcess(
        Strace.injecting("\(call):signal=SIGKILL:when=\(count)")
          + [Tool.path, "edit", directory.path("j.gguf"), "--set", "general.name=\(name)", "--quiet"],
        output: .captured, error: .captured
      ).wait(allowsKill: true)
      if try directory.names.contains("j.gguf.nibble-header") {
        let repaired = try Tool.run("edit", directory.path("j.gguf"))
        #expect(repaired.status == 0 && repaired.warnings.count == 1, "\(repaired.error)")
      }
      let bytes = try directory.read("j.gguf")
      #expect(bytes == Self.named(name) || bytes == PlainGGUF.small.bytes, "\(call) \(count)")
      if name == "tuny" {
        #expect(try Tool.run("verify", directory.path("j.gguf")).status == 0, "\(call) \(count)")
      }
      if run.status == 0 {
        #expect(bytes == Self.named(name))
        #expect(try directory.names == ["j.gguf", "j.gguf.nibble-manifest.json", "m.gguf"])
        return
      }
    }
    Issue.record("more than 30 calls")
  }

  /// A call that fails leaves everything as it was.
  @Test(
    .enabled(if: Machine.canTrace, "\(Machine.needsStrace)"), arguments: [names[0], names[1], "tuny with manifest"],
    ["fsync", "pwrite64", "renameat", "write", "pread64"])
  func failed(_ name: String, _ call: String) throws {
    let skipped = try Strace.count(call, of: ["--version"], butWrites: true)
    let hasManifest = name.hasSuffix("manifest")
    let name = hasManifest ? "tuny" : name
    if hasManifest { try #require(try Tool.run("join", path, "-o", directory.path("j.gguf")).status == 0) }
    let edited = hasManifest ? "j.gguf" : "m.gguf"
    let files = try directory.names
    let before = try files.map { try directory.read($0) }
    for count in 1..<40 {
      for (file, bytes) in zip(files, before) { try directory.write(file, bytes) }
      let run = try Tool.run(
        ["edit", directory.path(edited), "--set", "general.name=\(name)", "--quiet"],
        through: Strace.injecting("\(call):error=EIO:when=\(skipped + count)"))
      let bytes = try directory.read(edited)
      if hasManifest { #expect(try Tool.run("verify", directory.path(edited)).status == 0, "\(run.error)") }
      if run.status == 0 {
        #expect(bytes == Self.named(name) && count > 1 || call == "pwrite64" || call == "renameat")
        return
      }
      let isJournal = run.error.contains("nibble-header: cannot make the new name")
      let isLate = ["standard output", "new name durable", "removal durable"].contains { run.error.contains($0) }
      #expect(run.status == 74 && run.errorLines.count == 1, "\(call) \(count): \(run.error)")
      let isNew = bytes == Self.named(name)
      #expect(isNew == (isLate && !isJournal) && (isNew || bytes == PlainGGUF.small.bytes), "\(count): \(run.error)")
      #expect(try directory.names == files, "\(call) \(count): \(run.error)")
    }
    Issue.record("more than 40 calls")
  }

  /// 100 MB that take no room on the disk.
  private func large() throws -> String {
    var model = PlainGGUF.small
    model.tensors = [PlainGGUF.Tensor("w", [25_000_000], [])]
    return try directory.writeSparse("large.gguf", model.header, size: model.header.count + 100_000_000)
  }

  private func startAndPause(_ path: String, in place: String) throws -> ToolProcess {
    let process = try ToolProcess(
      [Tool.path, "edit", path, "--set", "general.name=\(Self.names[1])", "--json", "--quiet"], output: .captured,
      error: .captured)
    let isPaused = process.pause {
      var status = stat()
      return stat(place + "/.large.gguf.nibble-partial/large.gguf", &status) == 0 && status.st_size > 1 << 20
    }
    try #require(isPaused)
    return process
  }

  @Test func interrupted() throws {
    let path = try large()
    let before = try Snapshot(directory.path)
    let process = try startAndPause(path, in: directory.path)
    // Nor does a second edit come between.
    let second = try Tool.run("edit", path, "--set", "general.name=tuny", "--json")
    Refusal(status: 75, message: "another run is writing it").check(second, "edit")
    process.signal(SIGINT)
    process.signal(SIGCONT)
    Refusal(status: 130, message: "nothing was left behind").check(try process.wait(), "edit")
    #expect(try Snapshot(directory.path) == before)
  }

  @Test func changedMeanwhile() throws {
    let path = try large()
    let process = try startAndPause(path, in: directory.path)
    let file = try FileHandle(forUpdating: URL(fileURLWithPath: path))
    try file.truncate(atOffset: 50_000_000)
    try file.close()
    process.signal(SIGCONT)
    Refusal(status: 74, message: "changed").check(try process.wait(), "edit")
    #expect(try directory.names == ["large.gguf", "m.gguf"])
  }

  @Test(.enabled(if: Machine.canMount, "\(Machine.needsMounts)"))
  func noSpace() throws {
    var model = PlainGGUF.small
    model.tensors = [PlainGGUF.Tensor("w", [600 * 256], PlainGGUF.ramp(600 * 1024, 1))]
    let disk = try SmallDisk("size=1m")
    let path = disk.path + "/m.gguf"
    try Data(model.bytes).write(to: URL(fileURLWithPath: path))
    let run = try Tool.run("edit", path, "--set", "general.name=\(Self.names[1])", "--json")
    Refusal(status: 74, message: "for a new file, but only ").check(run, "edit")
    // In place there is room.
    #expect(try Tool.run("edit", path, "--set", "general.name=tuny").status == 0)
    model["general.name"] = .text("tuny")
    #expect(try [UInt8](Data(contentsOf: URL(fileURLWithPath: path))) == model.bytes)
    #expect(try disk.names == ["m.gguf"])
  }
}
