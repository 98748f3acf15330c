import Foundation
import JSON
import TestSupport
import Testing

/// An output whose name says that it is something that no verb writes.
@Suite struct OutputNameTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  @Test(arguments: [
    ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".PT", ".SafeTensors", ".json", ".onnx", ".h5", ".ggml", ".zip",
  ])
  func isRefused(_ ending: String) throws {
    let path = try directory.write("m.gguf", PlainGGUF.small.bytes)
    let out = directory.path("out" + ending)
    let refusal = Refusal(
      status: 2, message: "it is a directory, or a GGUF file whose name ends in .gguf, never a file ending in ")
    for words in [
      ["convert", path], ["split", path], ["join", path], ["quantize", path], ["merge", path, path],
      ["extract-lora", path, path, "--rank", "2"],
    ] {
      refusal.check(try Tool.run(words + ["-o", out, "--json"]), words[0])
    }
    #expect(try directory.names == ["m.gguf"])
  }

  @Test(arguments: [".GGUF", ".Gguf"])
  func capitals(_ ending: String) throws {
    let path = try directory.write("m.gguf", PlainGGUF.small.bytes)
    let run = try Tool.run("convert", path, "-o", directory.path("out" + ending), "--json")
    Refusal(status: 2, message: "a GGUF file's ends in .gguf, in small letters").check(run, "convert")
    #expect(try directory.names == ["m.gguf"])
  }

  /// Names with a dot are names, and a slash says that a directory is meant.
  @Test(arguments: ["Llama-3.1", "phi-2.binary", "out.safetensors/", "pt", "x.gguf.d"])
  func isTaken(_ name: String) throws {
    let model = try TestModel(layers: 1).write(to: directory)
    let run = try Tool.run("convert", model, "-o", directory.path(name))
    #expect(run.status == 0, "\(run.error)")
    #expect(try Tool.run("verify", directory.path(name)).status == 0)
  }
}
