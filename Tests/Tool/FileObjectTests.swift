import Foundation
import TestSupport
import Testing

#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// Things that are no regular files, files that may not be read, and processes with little room.
@Suite struct FileObjectTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  /// Given to the tool by name, and as the weights of a model directory.
  @Test func specialFiles() throws {
    mkfifo(directory.path("pipe"), 0o644)
    try Self.makeSocket(directory.path("socket"))
    _ = try directory.makeDirectory("model/model.safetensors")
    for (path, message) in [
      (directory.path("pipe"), "is a named pipe, expected a regular file"), (directory.path("socket"), "is a socket"),
      ("/dev/zero", "is a device, expected a regular file"), ("/dev/null", "is a device"),
      ("/proc/self/mem", ""), (directory.path("model/model.safetensors"), ""),
    ] where FileManager.default.fileExists(atPath: path) {
      let status: Int32 = path.hasSuffix("model.safetensors") ? 66 : 65
      for verb in ["inspect", "convert"] {
        let options = verb == "inspect" ? [] : ["-o", directory.path("out")]
        let run = try Tool.run([verb, path, "--json"] + options, limit: 5)
        Refusal(status: status, message: message).check(run, verb)
      }
    }
    // Moved to where the weights of a model directory should be.
    for name in ["pipe", "socket", "model/model.safetensors"] {
      let model = try directory.makeDirectory("as-model")
      #expect(rename(directory.path(name), model + "/model.safetensors") == 0)
      let run = try Tool.run(["quantize", model, "-o", directory.path("out"), "--json"], limit: 5)
      Refusal(status: 66, message: "holds no safetensors file").check(run, "quantize")
      try FileManager.default.removeItem(atPath: model)
    }
    #expect(try directory.names == ["model"])
  }

  private static func makeSocket(_ path: String) throws {
    #if canImport(Glibc)
      let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
    #else
      let descriptor = socket(AF_UNIX, SOCK_STREAM, 0)
    #endif
    defer { close(descriptor) }
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let bytes = Array(path.utf8)
    try #require(bytes.count < MemoryLayout.size(ofValue: address.sun_path))
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
    let bound = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    try #require(bound == 0)
  }

  /// Side files that are no files are named and left behind.
  @Test func specialSideFile() throws {
    let model = try TestModel(layers: 1).write(to: directory)
    mkfifo(model + "/queue", 0o644)
    _ = try directory.makeDirectory("model/runs")
    let run = try Tool.run("quantize", model, "-o", directory.path("out"))
    #expect(run.status == 0 && run.error.contains("not copied: 'queue', 'runs'"), "\(run.error)")
    #expect(
      try Snapshot(directory.path("out")).entries.keys.sorted() == [
        "checksums.xxh128", "config.json", "model.safetensors", "nibble-manifest.json",
      ])
  }

  @Test(.enabled(if: Machine.canBeNobody, "\(Machine.needsOtherUser)"))
  func permissions() throws {
    let model = try TestModel(layers: 1).write(to: directory)
    chmod(directory.path, 0o755)
    for (path, mode) in [
      ("model/model.safetensors", mode_t(0)), ("model", mode_t(0o644)), ("model/config.json", mode_t(0)),
    ] {
      var status = stat()
      stat(directory.path(path), &status)
      chmod(directory.path(path), mode)
      for (verb, options) in [("inspect", []), ("quantize", ["-o", directory.path("never")])] {
        if path.hasSuffix("config.json"), verb == "inspect" { continue }
        let run = try Tool.run([verb, model, "--json"] + options, through: Machine.asNobody)
        Refusal(status: 66, message: "Permission denied").check(run, verb)
      }
      chmod(directory.path(path), status.st_mode)
    }
    let twin = try Tool.run(["inspect", model], through: Machine.asNobody)
    #expect(twin.status == 0, "\(twin.error)")
    #expect(try directory.names == ["model"])
  }

  @Test(
    .enabled(if: Machine.canTrace, "\(Machine.needsStrace)"), arguments: ["quantize", "convert", "verify", "inspect"])
  func failingMedium(_ verb: String) throws {
    let model = try TestModel(layers: 2, width: 256).write(to: directory)
    let options = ["quantize", "convert"].contains(verb) ? ["-o", directory.path("out")] : []
    // The first read is that of the header's length; the loader's own reads come before.
    let first = try Strace.count("pread64", of: ["--version"]) + 1
    for count in [first, first + 1] {
      let run = try Tool.run(
        [verb, model, "--json", "--quiet"] + options, through: Strace.injecting("pread64:error=EIO:when=\(count)"))
      Refusal(status: 74, message: "cannot read: Input/output error, at offset ", file: "model.safetensors").check(
        run, verb)
    }
    #expect(try directory.names == ["model"])
  }

  // MARK: - Little room

  private func limited(_ limit: String, _ arguments: [String]) throws -> Tool.Result {
    try Tool.run(arguments, through: ["/bin/sh", "-c", "ulimit \(limit); exec \"$0\" \"$@\""])
  }

  @Test func fewDescriptors() throws {
    let shards = (0..<40).map {
      [TestModel.tensor("model.layers.\($0).x_proj.weight", "BF16", [32, 32], seed: UInt64($0))]
    }
    var model = TestModel(layers: 0)
    model.config = nil
    var map: [String] = []
    for (number, tensors) in shards.enumerated() {
      try directory.write("model/s\(number).safetensors", making: SafetensorsBuilder(tensors).bytes)
      map.append("\"\(tensors[0].name)\":\"s\(number).safetensors\"")
    }
    try directory.write(
      "model/model.safetensors.index.json", Array("{\"weight_map\":{\(map.joined(separator: ","))}}".utf8))
    for verb in [["inspect"], ["verify"], ["quantize", "-o", directory.path("out"), "--max-shard-size", "1kB"]] {
      let run = try limited("-n 16", [verb[0], directory.path("model")] + verb.dropFirst())
      #expect(run.status == 0, "\(verb): \(run.error)")
    }
    #expect(try limited("-n 16", ["verify", directory.path("out")]).status == 0)
    #expect(try directory.names == ["model", "out"])
  }

  @Test func smallStack() throws {
    let rows = HostileFile.safetensors.filter {
      $0.name.contains("nest") || $0.name.contains("rank") || $0.name.contains("depth")
    }
    #expect(rows.count >= 2)
    for row in rows {
      try directory.write("m.safetensors", row.bytes())
      let run = try limited("-s 256", ["inspect", directory.path("m.safetensors")])
      #expect(run.status == row.exitCode, "\(row.name): \(run.error)")
    }
    let model = try TestModel(layers: 2).write(to: directory)
    let run = try limited("-s 256", ["quantize", model, "-o", directory.path("out")])
    #expect(run.status == 0, "\(run.error)")
  }

  // MARK: - The Hugging Face cache

  /// Weights, index, config and side files are links into `../../blobs`.
  @Test func cacheSnapshot() throws {
    var source = TestModel(layers: 2)
    source.sideFiles = [("tokenizer.json", "{}"), ("tokenizer.model", "x")]
    let model = try source.write(
      to: directory, "model", shards: [Array(source.tensors.prefix(4)), Array(source.tensors.dropFirst(4))])
    let snapshot = try directory.makeDirectory("models--a--b/snapshots/0123abc")
    _ = try directory.makeDirectory("models--a--b/blobs")
    for (number, name) in try FileManager.default.contentsOfDirectory(atPath: model).sorted().enumerated() {
      let blob = "00\(number)deadbeef"
      try FileManager.default.copyItem(atPath: model + "/" + name, toPath: directory.path("models--a--b/blobs/\(blob)"))
      try FileManager.default.createSymbolicLink(
        atPath: snapshot + "/" + name, withDestinationPath: "../../blobs/\(blob)")
    }
    let before = try Snapshot(directory.path)
    for verb in ["inspect", "verify"] {
      let run = try Tool.run(verb, snapshot)
      #expect(run.status == 0, "\(run.error)")
      #expect(try run.output.replacing(snapshot, with: model) == Tool.run(verb, model).output)
    }
    #expect(try Snapshot(directory.path) == before)
    #expect(try Tool.run("quantize", model, "-o", directory.path("one")).status == 0)
    let run = try Tool.run("quantize", snapshot, "-o", directory.path("two"))
    #expect(run.status == 0, "\(run.error)")
    // Copies, not links.
    #expect(try Snapshot(ofOutput: directory.path("two")) == Snapshot(ofOutput: directory.path("one")))
    let manifest = try parse(String(decoding: directory.read("two/nibble-manifest.json"), as: UTF8.self))
    #expect(manifest?["options"]?["source"]?.string == "a/b")
    let written = try Snapshot(directory.path("two"))
    #expect(written.entries.values.allSatisfy { $0.hasPrefix("file") })
    #expect(try Tool.run("verify", directory.path("two"), "--against", snapshot).status == 0)
    // Inside the snapshot is no place for the output.
    #expect(try Tool.run("quantize", snapshot, "-o", snapshot + "/out").status == 73)
    // The link of a side file may lead nowhere else.
    try FileManager.default.removeItem(atPath: snapshot + "/tokenizer.json")
    try FileManager.default.createSymbolicLink(
      atPath: snapshot + "/tokenizer.json", withDestinationPath: "/etc/hostname")
    let refused = try Tool.run("quantize", snapshot, "-o", directory.path("three"), "--json", "--quiet")
    Refusal(status: 65, message: "is a symbolic link to '/etc/hostname'", file: "tokenizer.json").check(
      refused, "quantize")
    #expect(!FileManager.default.fileExists(atPath: directory.path("three")))
  }
}
