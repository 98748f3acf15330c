import Foundation
import JSON
import TestSupport
import Testing

/// What `diff` refuses, and how it says of which of the two it speaks.
@Suite struct DiffInputTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  @Test func missing() throws {
    let good = try TestModel(layers: 1).write(to: directory)
    let bad = directory.path("no\u{1b}where")
    for paths in [[good, bad], [bad, good]] {
      let run = try Tool.run(["diff", "--json"] + paths)
      Refusal(status: 66, message: "no\\u{1b}where: cannot open", file: bad).check(run, "diff")
    }
    let empty = try directory.makeDirectory("empty")
    let run = try Tool.run("diff", good, empty, "--json")
    Refusal(status: 66, message: "holds no safetensors file", file: empty).check(run, "diff")
  }

  /// Files of both checkpoints have the same names: the failure says whose it is.
  @Test func truncated() throws {
    let good = try TestModel(layers: 1).write(to: directory)
    let bytes = try directory.read("model/model.safetensors")
    for count in [0, 7, 100, bytes.count - 1] {
      try directory.write("bad/model.safetensors", making: Array(bytes.prefix(count)))
      let bad = directory.path("bad")
      for paths in [[good, bad], [bad, good], [bad + "/", good]] {
        let run = try Tool.run(["diff", "--json"] + paths)
        Refusal(status: 65, message: "", file: bad + "/model.safetensors").check(run, "diff")
      }
      let file = try Tool.run("diff", bad + "/model.safetensors", good, "--json")
      Refusal(status: 65, message: "", file: bad + "/model.safetensors").check(file, "diff")
    }
  }

  @Test func wrongKind() throws {
    let good = try TestModel(layers: 1).write(to: directory)
    // Beside a Hugging Face model, a GGUF file is one too.
    let gguf = try directory.write("m.gguf", GGUFBuilder.small.bytes)
    let run = try Tool.run("diff", good, gguf, "--json")
    Refusal(status: 69, message: "architecture 'test' has no Hugging Face form", file: gguf).check(run, "diff")
    let bare = try directory.write("bare.gguf", GGUFBuilder().bytes)
    for paths in [[good, bare], [bare, good]] {
      let run = try Tool.run(["diff", "--json"] + paths)
      Refusal(status: 65, message: "metadata 'general.architecture' is missing", file: bare).check(run, "diff")
    }
    let device = try Tool.run("diff", "/dev/null", good, "--json")
    Refusal(status: 65, message: "is a device", file: "/dev/null").check(device, "diff")
  }

  @Test(arguments: HostileFile.safetensors)
  func hostileFile(_ file: HostileFile) throws {
    let bad = try directory.write("bad.safetensors", file.bytes())
    let good = try directory.write("good.safetensors", file.twin())
    for paths in [[bad, good], [good, bad]] {
      let run = try Tool.run(["diff", "--json"] + paths)
      Refusal(status: file.exitCode, message: file.message, file: bad, tensor: file.tensor).check(run, "diff")
    }
    #expect(try Tool.run("diff", good, good).status == 0)
  }

  @Test(.enabled(if: Machine.canTrace, "\(Machine.needsStrace)"))
  func failingMedium() throws {
    let a = try TestModel(layers: 1, seed: 1).write(to: directory, "a")
    let b = try TestModel(layers: 1, seed: 1).write(to: directory, "b")
    let c = try TestModel(layers: 1, seed: 2).write(to: directory, "c")
    let headers = try Strace.count("pread64", of: ["--version"])
    let equal = try Strace.count("pread64", of: ["diff", a, b])
    // The first read, the last of those that compare bytes, the first of those that measure.
    for (other, number) in [(b, headers + 1), (b, equal), (c, equal + 1)] {
      let run = try Tool.run(
        ["diff", a, other, "--json", "--quiet", "--jobs", "1"],
        through: Strace.injecting("pread64:error=EIO:when=\(number)"))
      Refusal(status: 74, message: "/model.safetensors: ").check(run, "diff")
    }
  }
}
