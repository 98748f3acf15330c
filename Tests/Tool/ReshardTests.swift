import Foundation
import JSON
import TestSupport
import Testing

#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// `nibble split` and `nibble join` as processes.
@Suite struct ReshardTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  @Test func reports() throws {
    let model = try TestModel(layers: 2).write(to: directory)
    let out = directory.path("out")
    let planned = try Tool.run("split", model, "-o", out, "--max-shard-size", "20kB", "--json", "--dry-run")
    #expect(try directory.names == ["model"])
    let run = try Tool.run("split", model, "-o", out, "--max-shard-size=20kB", "--json")
    #expect(run.status == 0 && run.error == "" && planned.status == 0)
    let json = try #require(parse(run.output))
    let keys = ["output", "files", "tensors", "parameters", "bytesIn", "bytesOut", "seconds", "warnings"]
    #expect(json.object?.keys == keys)
    #expect(json["tensors"]?.int == 8 && json["parameters"]?.int == 4 * 64 * 64 + 2 * 32 * 64 + 2 * 64)
    for key in keys where key != "seconds" { #expect(parse(planned.output)?[key] == json[key], "\(key)") }
    #expect(
      try json["files"]?.array?.compactMap(\.string) == FileManager.default.contentsOfDirectory(atPath: out).sorted())
    let join = try Tool.run("join", out, "-o", directory.path("joined"))
    #expect(join.status == 0 && join.output.hasPrefix("wrote \(directory.path("joined")): 4 files, 8 tensors"))
    #expect(try Tool.run("diff", model, directory.path("joined")).status == 0)
  }

  @Test func sizes() throws {
    let path = try directory.write("m.gguf", PlainGGUF.small.bytes)
    for (words, message) in [
      (["split", path], "option '-o' is missing"),
      (["split", path, "-o", directory.path("out"), "--max-shard-size", "0"], "is not a size"),
      (["join", path, "-o", directory.path("out"), "--max-shard-size", "1GB"], "unknown option '--max-shard-size'"),
    ] {
      Refusal(status: 2, message: message).check(try Tool.run(words + ["--json"]), words[0])
    }
    #expect(try directory.names == ["m.gguf"])
  }

  @Test(arguments: ["split", "join"]) func interrupted(_ verb: String) throws {
    try InterruptedRunTests.writeZeros(directory, "model/model.safetensors", rows: 25_600, columns: 2048)
    let before = try Snapshot(directory.path)
    let process = try ToolProcess(
      [Tool.path, verb, directory.path("model"), "-o", directory.path("out"), "--jobs", "1", "--json", "--quiet"],
      output: .captured, error: .captured)
    let shard = directory.path(".out.nibble-partial/model.safetensors")
    let isPaused = process.pause {
      var status = stat()
      return stat(shard, &status) == 0 && status.st_size > 1 << 20
    }
    try #require(isPaused)
    process.signal(SIGTERM)
    process.signal(SIGCONT)
    Refusal(status: 143, message: "nothing was left behind").check(try process.wait(), verb)
    #expect(try Snapshot(directory.path) == before)
  }

  @Test(.enabled(if: Machine.canMount, "\(Machine.needsMounts)"), arguments: ["split", "join"])
  func noSpace(_ verb: String) throws {
    var model = PlainGGUF.small
    model.tensors = [PlainGGUF.Tensor("w", [1 << 19], PlainGGUF.ramp(1 << 21, 1))]
    let path = try directory.write("m.gguf", model.bytes)
    let disk = try SmallDisk("size=1m")
    let run = try Tool.run(verb, path, "-o", disk.path + "/out", "--json", "--quiet")
    Refusal(status: 74, message: "bytes) are free there").check(run, verb)
    #expect(try disk.names.isEmpty)
  }
}
