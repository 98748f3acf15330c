import Foundation
import JSON
import TestSupport
import Testing

/// Folders that belong to the model go along, others do not, and whatever the model's files say, nothing outside it is
/// read.
@Suite struct FolderTests {
  let directory: TemporaryDirectory
  let model: String
  var out: String { directory.path("out") }

  init() throws {
    directory = try TemporaryDirectory()
    model = try TestModel(layers: 1).write(to: directory)
    for name in ["1_Pooling/config.json", "2_Dense/model.safetensors", "2_Dense/pytorch_model.bin", "2_Dense/sub/x"] {
      try directory.write("model/" + name, making: Array(name.utf8))
    }
    try write("modules.json", #"[{"idx": 0, "path": ""}, {"idx": 1, "path": "1_Pooling"}, {"path": "./2_Dense"}]"#)
  }

  private func write(_ name: String, _ text: String) throws {
    try directory.write("model/" + name, making: Array(text.utf8))
  }

  private static let belonging = [
    "1_Pooling/config.json", "2_Dense/model.safetensors", "2_Dense/pytorch_model.bin", "2_Dense/sub/x",
  ]

  /// What a run copied of folders.
  private func copied(_ out: String? = nil) throws -> [String] {
    let out = out ?? self.out
    let paths = FileManager.default.subpaths(atPath: out) ?? []
    return paths.filter { $0.contains("/") && Self.isFile(out + "/" + $0) }.sorted()
  }

  private static func isFile(_ path: String) -> Bool {
    var isDirectory: ObjCBool = false
    return FileManager.default.fileExists(atPath: path, isDirectory: &isDirectory) && !isDirectory.boolValue
  }

  @Test(arguments: ["quantize", "convert", "split", "join"])
  func belong(_ verb: String) throws {
    let planned = try Tool.run(verb, model, "-o", out, "--json", "--dry-run")
    let run = try Tool.run(verb, model, "-o", out, "--json")
    #expect(run.status == 0 && !run.error.contains("not copied"), "\(run.error)")
    #expect(try copied() == Self.belonging)
    for name in Self.belonging {
      #expect(try directory.read("out/" + name) == directory.read("model/" + name))
    }
    let files = parse(run.output)?["files"]?.array?.compactMap(\.string) ?? []
    #expect(
      files.filter { $0.contains("/") } == Self.belonging
        && parse(planned.output)?["files"] == parse(run.output)?["files"])
    let manifest = parse(String(decoding: try directory.read("out/nibble-manifest.json"), as: UTF8.self))
    let list = String(decoding: try directory.read("out/checksums.xxh128"), as: UTF8.self)
    for name in Self.belonging {
      #expect(manifest?["files"]?[name]?["size"]?.int == name.utf8.count && list.contains("  \(name)\n"))
    }
    #expect(try Tool.run("verify", out).status == 0)
  }

  @Test(arguments: [
    "original", "onnx", ".git", "checkpoint-500", "openvino", "1_pooling2", "global_step7",
  ])
  func othersStayAndAreNamed(_ name: String) throws {
    try write("\(name)/f.json", "{}")
    // What a file says of it changes nothing.
    try write("more.json", #"{"path": "\#(name)", "file": "\#(name)/no such file", "x": ["a/\#(name)/f.json"]}"#)
    let run = try Tool.run("convert", model, "-o", out)
    #expect(run.status == 0 && run.error.contains("not copied: '\(name)'"), "\(run.error)")
    #expect(try copied() == Self.belonging)
  }

  @Test func anyFileThatTheModelNames() throws {
    try write("assets/vocab.txt", "v")
    try write("assets/deep/er/x", "x")
    try write("assets/deep/er/est/x", "x")
    try write("other/f.txt", "o")
    try write("tokenizer.json", #"{"vocab": {"other/f.txt": 1}}"#)
    try write("broken.json", #"{"other/f.txt": "#)
    try write("processor_config.json", #"{"files": [{"vocab": "./assets/vocab.txt"}]}"#)
    let run = try Tool.run("convert", model, "-o", out)
    #expect(run.status == 0 && run.error.contains("not copied: 'assets/deep/er/est', 'other'"), "\(run.error)")
    #expect(try copied() == (Self.belonging + ["assets/deep/er/x", "assets/vocab.txt"]).sorted())
    // The twin: the same words where they are no vocabulary.
    try write("processor_config.json", #"{"other/f.txt": 1}"#)
    #expect(try Tool.run("convert", model, "-o", directory.path("twin")).status == 0)
    #expect(try copied(directory.path("twin")) == (Self.belonging + ["other/f.txt"]).sorted())
  }

  /// A name from a file becomes no path.
  @Test(arguments: ["../victim", "/etc", "..", ".", "1_Pooling/../../victim", "//etc", "victim", "1_Pooling\\u0000"])
  func hostileNames(_ name: String) throws {
    try directory.write("victim/secret", making: [1])
    try write("modules.json", #"[{"path": "\#(name)"}, {"path": "\#(name)/secret"}, {"path": "2_Dense"}]"#)
    try write("more.json", #"{"file": "\#(name)/secret", "hosts": "/etc/hostname"}"#)
    let before = try Snapshot(directory.path)
    let run = try Tool.run("convert", model, "-o", out)
    #expect(run.status == 0, "\(run.error)")
    let inside = Self.belonging.filter { $0.hasPrefix("2_") || name.hasPrefix("1_Pooling/") }
    #expect(try copied() == inside)
    try directory.remove("out")
    #expect(try Snapshot(directory.path) == before)
  }

  // MARK: - Links

  @Test func links() throws {
    try directory.write("victim/secret", making: [1])
    try directory.link("model/2_Dense/link", to: directory.path("victim/secret"))
    let refusal = Refusal(status: 65, message: "is a symbolic link to '\(directory.path("victim/secret"))'")
    refusal.check(try Tool.run("convert", model, "-o", out, "--json"), "convert")
    try directory.remove("model/2_Dense/link")
    // A folder that is one.
    try directory.remove("model/1_Pooling")
    try directory.link("model/1_Pooling", to: directory.path("victim"))
    let folder = Refusal(status: 65, message: "is a symbolic link to '\(directory.path("victim"))'")
    folder.check(try Tool.run("convert", model, "-o", out, "--json"), "convert")
    try directory.remove("model/1_Pooling")
    try directory.link("model/2_Dense/sub2", to: directory.path("victim"))
    folder.check(try Tool.run("convert", model, "-o", out, "--json"), "convert")
    try directory.remove("model/2_Dense/sub2")
    #expect(try Tool.run("convert", model, "-o", out).status == 0)
  }

  /// In a snapshot of the Hugging Face cache, folders are folders and the files in them links.
  @Test(arguments: [
    ("../../../blobs/0123abcd", 0), ("../../blobs/0123abcd", 65), ("../../../../blobs/0123abcd", 65),
    ("../../../blobs/../../victim", 65),
  ])
  func cache(_ target: String, _ status: Int32) throws {
    try directory.write("models--x--y/blobs/0123abcd", making: [7])
    try directory.write("victim", [1])
    let root = "models--x--y/snapshots/89ab"
    _ = try directory.makeDirectory(root)
    for name in ["model.safetensors", "config.json", "modules.json"] {
      try directory.write("\(root)/\(name)", directory.read("model/" + name))
    }
    _ = try directory.makeDirectory(root + "/1_Pooling")
    try directory.link(root + "/1_Pooling/config.json", to: target)
    let run = try Tool.run("convert", directory.path(root), "-o", out)
    #expect(run.status == status, "\(run.error)")
    if status == 0 { #expect(try directory.read("out/1_Pooling/config.json") == [7]) }
  }

  // MARK: - What verify and --force make of them

  @Test func damage() throws {
    #expect(try Tool.run("quantize", model, "-o", out).status == 0)
    func expect(_ problem: String, sourceLocation: SourceLocation = #_sourceLocation) throws {
      let run = try Tool.run("verify", out, "--json", sourceLocation: sourceLocation)
      let problems = parse(run.output)?["problems"]?.array ?? []
      #expect(run.status == 1 && problems.count == 1, "\(run.output)", sourceLocation: sourceLocation)
      let text = "\(problems.first?["file"]?.string ?? ""): \(problems.first?["problem"]?.string ?? "")"
      #expect(text.contains(problem), "\(text)", sourceLocation: sourceLocation)
    }
    try directory.overwrite("out/1_Pooling/config.json", at: 3, with: [0])
    try expect("1_Pooling/config.json: ")
    try directory.overwrite(
      "out/1_Pooling/config.json", at: 3, with: Array("1_Pooling/config.json".utf8.dropFirst(3).prefix(1)))
    #expect(try Tool.run("verify", out).status == 0)
    try directory.write("out/2_Dense/more", making: [1])
    try expect("2_Dense/more: is not in the manifest")
    try directory.remove("out/2_Dense/more")
    // Loaders look there, listed or not.
    try directory.write("out/additional_chat_templates/x.jinja", making: [1])
    try expect("additional_chat_templates/x.jinja: is not in the manifest")
    try directory.remove("out/additional_chat_templates")
    try directory.remove("out/2_Dense/sub/x")
    try expect("2_Dense/sub/x: is missing")
    try directory.write("out/2_Dense/sub/x", making: Array("2_Dense/sub/x".utf8))
    // Somebody's own folder.
    try directory.write("out/notes/x", making: [1])
    #expect(try Tool.run("verify", out).status == 0)
  }

  @Test(arguments: ["../x", "1_Pooling/../../x", "/etc/hostname", "1_Pooling//config.json", "a/b/c/d/e", "1_Pooling/"])
  func manifestWithAnotherPath(_ path: String) throws {
    #expect(try Tool.run("quantize", model, "-o", out).status == 0)
    let text = String(decoding: try directory.read("out/nibble-manifest.json"), as: UTF8.self)
    let changed = text.replacing("\"1_Pooling/config.json\"", with: "\"\(path)\"")
    #expect(changed != text)
    try directory.write("out/nibble-manifest.json", Array(changed.utf8))
    let run = try Tool.run("verify", out)
    #expect(run.status == 1 && run.output.contains("'\(path)' cannot be a file of the checkpoint"), "\(run.output)")
  }

  @Test func force() throws {
    let first = try Tool.run("quantize", model, "-o", out)
    #expect(first.status == 0)
    try directory.remove("model/2_Dense")
    let second = try Tool.run("quantize", model, "-o", out, "--force")
    #expect(second.status == 0, "\(second.error)")
    #expect(try copied() == ["1_Pooling/config.json"])
    #expect(try Tool.run("verify", out).status == 0 && directory.names == ["model", "out"])
    // Not everything in the folder was written by this tool.
    for extra in ["1_Pooling/mine.txt", "1_Pooling/deeper/mine.txt", "mine/x"] {
      try directory.write("out/" + extra, making: [1])
      let before = try Snapshot(directory.path)
      let run = try Tool.run("quantize", model, "-o", out, "--force", "--json")
      let holds = extra == "mine/x" ? "holds 'mine', which is not a file" : "holds '\(extra)', which its checksums"
      Refusal(status: 73, message: holds).check(run, "quantize")
      #expect(try Snapshot(directory.path) == before)
      try directory.remove("out/" + extra)
      if extra != "1_Pooling/mine.txt" {
        try directory.remove("out/" + extra.replacing("/mine.txt", with: "").replacing("/x", with: ""))
      }
    }
    #expect(try Tool.run("quantize", model, "-o", out, "--force").status == 0)
  }

  /// What a killed run left, folders included, is removed by the next.
  @Test func leftovers() throws {
    try directory.write(".out.nibble-partial/1_Pooling/a/b", making: [1])
    #expect(try Tool.run("quantize", model, "-o", out).status == 0)
    #expect(try directory.names == ["model", "out"] && copied() == Self.belonging)
  }
}
