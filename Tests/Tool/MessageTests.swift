import Foundation
import JSON
import TestSupport
import Testing

/// What is said of files that are not what they should be, word for word.
@Suite struct MessageTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  /// Contents of files that people have in place of a checkpoint, and what they look like.
  static let contents: [(name: String, bytes: [UInt8], exitCode: Int32, looksLike: String)] = [
    (
      "text", Array("root:x:0:0:root:/root:/bin/bash\nbin:x:1:1\n".utf8), 65,
      "text that begins with 'root:x:0:0:root:/root:/bin/bash'"
    ),
    ("short text", Array("hi\n".utf8), 65, "text that begins with 'hi'"),
    ("text of accents", Array(String(repeating: "é", count: 300).utf8), 65, "text that begins with 'éé"),
    ("nothing", [], 65, "an empty file"),
    (
      "page", Array("\n<!DOCTYPE html>\n<html lang=en><title>404</title>".utf8), 65,
      "a web page (HTML), such as a server sends instead of a file"
    ),
    ("error", Array("<?xml version='1.0'?><Error/>".utf8), 65, "XML, such as a server sends instead of a file"),
    ("pointer", pointer, 69, "a Git LFS pointer, not the file itself; run 'git lfs pull' first"),
    (
      "pickle", [0x80, 2, 0x7D, 0x71, 0] + Array(repeating: 0x2E, count: 40), 69,
      "a Python pickle, which Nibble never executes"
    ),
    (
      "tar", Array(repeating: 0x61, count: 257) + Array("ustar".utf8) + Array(repeating: 0, count: 250), 65,
      "a tar archive"
    ),
    ("gzip", [0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 3, 1, 2], 65, "a gzip archive"),
    ("picture", [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A, 0, 0, 0, 13], 65, "a PNG image"),
    ("zeros", Array(repeating: 0, count: 4096), 65, "zeros: room that was reserved, or a download that was broken off"),
  ]

  static let pointer = Array("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n".utf8)

  @Test(arguments: contents.indices)
  func noCheckpoint(_ number: Int) throws {
    let (name, bytes, exitCode, looksLike) = Self.contents[number]
    // A file is called what the user called it, one of a directory by its own name.
    let file = try directory.write(name, bytes)
    let message = "not a checkpoint: it is \(looksLike)"
    try Refusal(status: exitCode, message: "\(file): \(message)", file: file).check(file, in: directory)
    _ = try directory.makeDirectory("model")
    try directory.write("model/model.safetensors", bytes)
    try Refusal(status: exitCode, message: message, file: "model.safetensors").check(
      directory.path("model"), in: directory)
  }

  /// A ZIP archive may be one of PyTorch where it is named itself; as a shard it is none.
  @Test func zip() throws {
    let bytes: [UInt8] = [0x50, 0x4B, 3, 4] + Array(repeating: 0, count: 40)
    let file = try directory.write("zip", bytes)
    try Refusal(status: 65, message: "zip: the ZIP archive is cut short", file: "zip").check(file, in: directory)
    _ = try directory.makeDirectory("model")
    try directory.write("model/model.safetensors", bytes)
    let message = "not a checkpoint: it is a ZIP archive (a PyTorch checkpoint?)"
    try Refusal(status: 69, message: message, file: "model.safetensors").check(directory.path("model"), in: directory)
  }

  /// The nearest valid file: a header that is followed by just its data.
  @Test func aCheckpoint() throws {
    let file = try directory.write("text", SafetensorsBuilder(TestModel(layers: 1).tensors).bytes)
    #expect(try Tool.run("inspect", file).status == 0)
  }

  @Test(arguments: contents.indices)
  func noConfiguration(_ number: Int) throws {
    let (_, bytes, _, looksLike) = Self.contents[number]
    let model = try TestModel(layers: 1).write(to: directory)
    try directory.write("model/config.json", bytes)
    let run = try Tool.run("quantize", model, "-o", directory.path("out"), "--json")
    Refusal(status: 65, message: "not JSON: it is \(looksLike)", file: "config.json").check(run, "quantize")
    try directory.write("model/config.json", Array(" {}\n".utf8))
    #expect(try Tool.run("quantize", model, "-o", directory.path("out")).status == 0)
  }

  @Test(arguments: ["tokenizer.json", "tokenizer_config.json", "tokenizer.model"])
  func noTokenizer(_ name: String) throws {
    let fixture = Tool.repository + "/fixtures/sql-llama"
    let model = try directory.makeDirectory("model")
    for file in try FileManager.default.contentsOfDirectory(atPath: fixture) {
      try FileManager.default.copyItem(atPath: fixture + "/" + file, toPath: model + "/" + file)
    }
    let whole = try Tool.run("convert", model, "-o", directory.path("whole.gguf"), "--dry-run")
    #expect(whole.status == 0, "\(whole.error)")
    try directory.write("model/" + name, Self.pointer)
    let run = try Tool.run("convert", model, "-o", directory.path("x.gguf"), "--json")
    let kind = name.hasSuffix("json") ? "not JSON: it" : "is no SentencePiece model: it"
    Refusal(status: 65, message: "\(kind) is a Git LFS pointer", file: name).check(run, "convert")
    // Where it is copied it is not read, but not passed over either.
    let copied = try Tool.run("quantize", model, "-o", directory.path("out"), "--dry-run")
    let warning = "copied, but only Git LFS pointers ('git lfs pull' fetches the files): '\(name)'"
    #expect(copied.status == 0 && copied.warnings.contains { $0.hasSuffix(warning) }, "\(copied.error)")
  }

  @Test func textInPlaceOfATokenizer() throws {
    let fixture = Tool.repository + "/fixtures/sql-llama"
    let model = try directory.makeDirectory("model")
    for file in try FileManager.default.contentsOfDirectory(atPath: fixture) {
      try FileManager.default.copyItem(atPath: fixture + "/" + file, toPath: model + "/" + file)
    }
    func run() throws -> Tool.Result { try Tool.run("convert", model, "-o", directory.path("x.gguf"), "--json") }
    let valid = try directory.read("model/tokenizer.model")
    for (text, found) in [
      ("Not found\n", "it is text that begins with 'Not found'"), ("{\"a\": 1}", "it is text that begins with '{"),
      ("\n\n  Zugriff verweigert: ß", "it is text that begins with 'Zugriff verweigert: ß'"),
      ("<html></html>", "it is a web page (HTML)"), ("", "it is an empty file"),
    ] {
      try directory.write("model/tokenizer.model", Array(text.utf8))
      Refusal(status: 65, message: "is no SentencePiece model: \(found)", file: "tokenizer.model").check(
        try run(), "convert")
    }
    // A model that is cut short is none of text.
    try directory.write("model/tokenizer.model", Array(valid.dropLast(7)))
    #expect(try !run().error.contains("is no SentencePiece model"))
    try directory.write("model/tokenizer.model", valid)
    #expect(try run().status == 0)
  }

  // MARK: - The hub

  @Test func nameOfTheHub() throws {
    let name = "meta-llama/Llama-2-7b-hf"
    let empty = try directory.makeDirectory("empty")
    func run(_ verb: String, _ path: String, cache: String) throws -> Tool.Result {
      let options = ["quantize", "convert"].contains(verb) ? ["-o", directory.path("out")] : []
      return try Tool.run([verb, path] + options, through: ["/usr/bin/env", "HF_HUB_CACHE=\(cache)"])
    }
    for verb in ["inspect", "verify", "fit", "quantize", "convert"] {
      let absent = try run(verb, name, cache: empty)
      #expect(absent.status == 66)
      #expect(
        absent.error == "nibble: error: \(name): is not on this disk; "
          + "'hf download \(name) --local-dir Llama-2-7b-hf' fetches it\n")
    }
    _ = try directory.makeDirectory("hub/models--meta-llama--Llama-2-7b-hf/snapshots/abc")
    let snapshot = try directory.makeDirectory("hub/models--meta-llama--Llama-2-7b-hf/snapshots/def")
    _ = try directory.makeDirectory("hub/models--meta-llama--Llama-2-7b-hf/refs")
    try directory.write("hub/models--meta-llama--Llama-2-7b-hf/refs/main", Array("def".utf8))
    let cached = try run("inspect", name, cache: directory.path("hub"))
    #expect(
      cached.status == 66
        && cached.error
          == "nibble: error: \(name): is not a path here; the Hugging Face cache has it: \(snapshot)\n",
      "\(cached.error)")
    // What cannot be a name of the hub is a path.
    for path in ["no/such/model", "./model", "org/model.gguf", "../model"] {
      #expect(
        try run("inspect", path, cache: empty).error
          == "nibble: error: \(path): cannot open: No such file or directory\n")
    }
  }

  @Test func entryOfTheCache() throws {
    let entry = try directory.makeDirectory("hub/models--org--name")
    let blobs = try directory.makeDirectory("hub/models--org--name/blobs")
    let none = "is an entry of the Hugging Face cache without a snapshot: its download was broken off"
    _ = try directory.makeDirectory("hub/models--org--name/snapshots")
    try Refusal(status: 66, message: none, file: entry).check(entry, in: directory)
    let snapshot = try TestModel(layers: 1).write(to: directory, "hub/models--org--name/snapshots/abc")
    try Refusal(
      status: 66, message: "is an entry of the Hugging Face cache; name its snapshot: \(snapshot)", file: entry
    )
    .check(
      entry, in: directory, line: "\(entry): is an entry of the Hugging Face cache; name its snapshot: \(snapshot)")
    let parent = directory.path("hub/models--org--name/snapshots")
    try Refusal(status: 66, message: "name one: \(snapshot)", file: parent).check(parent, in: directory)
    let hub = directory.path("hub")
    try Refusal(status: 66, message: "is the Hugging Face cache; name the snapshot of a model in it", file: hub).check(
      hub, in: directory)
    let merge = try Tool.run("merge", snapshot, entry, "-o", directory.path("out"), "--json")
    Refusal(status: 66, message: "name its snapshot: \(snapshot)", file: entry).check(merge, "merge")
    let fit = try Tool.run("fit", entry, "--json")
    Refusal(status: 66, message: "name its snapshot: \(snapshot)", file: entry).check(fit, "fit")
    #expect(try Tool.run("inspect", snapshot).status == 0)
    try Refusal(status: 66, message: "holds no safetensors file", file: blobs).check(blobs, in: directory)
  }

  // MARK: - Others

  @Test(arguments: [(-1, "one byte too short"), (-300, "300 bytes too short"), (1, "one byte too long")])
  func sizeInTheManifest(_ change: Int, _ distance: String) throws {
    let model = try TestModel(layers: 1).write(to: directory)
    let out = directory.path("out")
    try #require(try Tool.run("quantize", model, "-o", out).status == 0)
    let bytes = try directory.read("out/model.safetensors")
    try directory.write(
      "out/model.safetensors", change > 0 ? bytes + Array(repeating: 0, count: change) : Array(bytes.dropLast(-change)))
    let run = try Tool.run("verify", out)
    #expect(run.status == 1)
    let line = try #require(run.output.split(separator: "\n").first)
    #expect(
      line.hasPrefix("model.safetensors: ")
        && line.hasSuffix(
          "the file is \(distance): it has \(bytes.count + change) bytes, the manifest says \(bytes.count)"),
      "\(line)")
  }

  @Test func weightsOfAnotherKind() throws {
    let model = try TestModel(layers: 1).write(to: directory)
    try directory.write("model/o.gguf", GGUFBuilder().bytes)
    try directory.write("model/pytorch_model.bin", [1])
    let run = try Tool.run("inspect", model)
    #expect(
      run.warnings == [
        "nibble: warning: read: 'model.safetensors'; ignored: 'o.gguf', 'pytorch_model.bin', since loaders take "
          + "safetensors files where there are any"
      ])
    try directory.remove("model/o.gguf")
    try directory.remove("model/pytorch_model.bin")
    #expect(try Tool.run("inspect", model).warnings.isEmpty)
  }
}
