import Foundation
import TestSupport
import Testing

#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// Runs that are stopped, killed, met by another run, or whose input changes under them.
///
/// The tool is stopped (SIGSTOP) as soon as it has written or read a certain amount, then the fault is
/// made, then it goes on: no timing decides.
@Suite struct InterruptedRunTests {
  let directory: TemporaryDirectory
  let model: String
  let out: String

  init() throws {
    directory = try TemporaryDirectory()
    model = directory.path("model")
    out = directory.path("out")
    // 100 MB of zeros that take no room on the disk.
    try Self.writeZeros(directory, "model/model.safetensors", rows: 25_600, columns: 2048)
  }

  /// One BF16 matrix of zeros.
  static func writeZeros(_ directory: TemporaryDirectory, _ name: String, rows: Int, columns: Int) throws {
    let size = 2 * rows * columns
    let member = SafetensorsBuilder.member(
      "model.layers.0.mlp.up_proj.weight", "BF16", "[\(rows),\(columns)]", "[0,\(size)]")
    let header = SafetensorsBuilder.file("{\(member)}" + String(repeating: " ", count: 7 - (member.utf8.count + 1) % 8))
    try directory.write(name, making: [])
    try directory.writeSparse(name, header, size: header.count + size)
  }

  /// Starts `verb` and stops it when it has written some of its output.
  private func startAndPause(_ verb: String, options: [String] = []) throws -> ToolProcess {
    let process = try ToolProcess(
      [Tool.path, verb, model, "-o", out, "--jobs", "1"] + options, output: .captured, error: .captured)
    let shard = directory.path(".out.nibble-partial/model.safetensors")
    let isPaused = process.pause { Self.size(shard) > 1 << 20 }
    try #require(isPaused)
    #expect(Self.size(shard) < 20 << 20)
    return process
  }

  private static func size(_ path: String) -> Int {
    var status = stat()
    return stat(path, &status) == 0 ? Int(status.st_size) : 0
  }

  private func expectNothingLeft(sourceLocation: SourceLocation = #_sourceLocation) throws {
    #expect(try directory.names == ["model"], sourceLocation: sourceLocation)
  }

  // MARK: - Signals

  @Test(arguments: [SIGHUP, SIGINT, SIGTERM], ["quantize", "convert"])
  func signal(_ number: Int32, _ verb: String) throws {
    let before = try Snapshot(model)
    let process = try startAndPause(verb, options: ["--json", "--quiet"])
    process.signal(number)
    let resumed = Date()
    process.signal(SIGCONT)
    let run = try process.wait()
    #expect(Date().timeIntervalSince(resumed) < 2)
    Refusal(status: 128 + number, message: "nothing was left behind").check(run, verb)
    try expectNothingLeft()
    #expect(try Snapshot(model) == before)
  }

  @Test(.enabled(if: Machine.hasProc, "\(Machine.needsProc)"), arguments: [["verify"], ["inspect", "--stats"]])
  func signalWhileReading(_ words: [String]) throws {
    let process = try startReading(words)
    process.signal(SIGINT)
    process.signal(SIGCONT)
    let run = try process.wait()
    #expect(run.status == 130 && run.errorLines.count == 1, "\(run.error)")
  }

  /// What a shell's `nohup` ignores stays ignored.
  @Test func ignoredHangup() throws {
    let process = try ToolProcess(
      ["/bin/sh", "-c", "trap '' HUP; exec \"$0\" \"$@\"", Tool.path, "quantize", model, "-o", out, "--jobs", "1"],
      output: .captured, error: .captured)
    let shard = directory.path(".out.nibble-partial/model.safetensors")
    try #require(process.pause { Self.size(shard) > 1 << 20 })
    process.signal(SIGHUP)
    process.signal(SIGCONT)
    let run = try process.wait()
    #expect(run.status == 0, "\(run.error)")
  }

  @Test(arguments: ["quantize", "convert"])
  func kill(_ verb: String) throws {
    let process = try startAndPause(verb)
    process.signal(SIGKILL)
    #expect(try process.wait(allowsKill: true).status == 137)
    #expect(try directory.names == [".out.nibble-partial", "model"])
    let again = try Tool.run(verb, model, "-o", out)
    #expect(again.status == 0, "\(again.error)")
    #expect(try directory.names == ["model", "out"])
    #expect(try Tool.run("verify", out, "--against", model).status == 0)
  }

  // MARK: - Two runs

  @Test func secondRunIsRefused() throws {
    let first = try startAndPause("quantize")
    let second = try Tool.run("quantize", model, "-o", out, "--json", "--quiet")
    Refusal(status: 75, message: "another run is writing it ('.out.nibble-partial' is locked)").check(
      second, "quantize")
    // Another output is no business of the first run.
    #expect(try Tool.run("quantize", model, "-o", directory.path("out2"), "--quiet").status == 0)
    first.signal(SIGCONT)
    #expect(try first.wait().status == 0)
    #expect(try directory.names == ["model", "out", "out2"])
    #expect(try Tool.run("verify", out).status == 0)
    #expect(try Snapshot(out) == Snapshot(directory.path("out2")))
  }

  @Test func manyAtOnce() throws {
    let small = try TestModel(layers: 2).write(to: directory, "small")
    for _ in 0..<8 {
      let runs = try (0..<3).map { _ in try Tool.start("quantize", small, "-o", out, "--quiet", "--force") }
      let results = try runs.map { try $0.wait() }
      #expect(results.allSatisfy { [0, 75].contains($0.status) }, "\(results.map(\.error))")
      #expect(results.contains { $0.status == 0 })
      #expect(try Tool.run("verify", out).status == 0)
      #expect(try directory.names == ["model", "out", "small"])
    }
  }

  // MARK: - The input changes

  @Test(arguments: ["quantize", "convert"], ["truncated", "overwritten", "extended"])
  func changedInput(_ verb: String, _ change: String) throws {
    let process = try startAndPause(verb, options: ["--json", "--quiet"])
    try self.change(change)
    process.signal(SIGCONT)
    let run = try process.wait()
    Refusal(status: 74, message: "model.safetensors: ").check(run, verb)
    #expect(run.error.contains("changed"))
    try expectNothingLeft()
  }

  private func change(_ change: String) throws {
    let path = model + "/model.safetensors"
    let file = try FileHandle(forUpdating: URL(fileURLWithPath: path))
    switch change {
    case "truncated": try file.truncate(atOffset: 4096)
    case "overwritten":
      try file.seek(toOffset: UInt64(Self.size(path) - 8))
      try file.write(contentsOf: Data([1, 2]))
    default:
      try file.seekToEnd()
      try file.write(contentsOf: Data([1]))
    }
    try file.close()
  }

  /// A new file under the old name: the run reads the old one to its end, or says that it changed.
  @Test func replacedInput() throws {
    let reference = try Tool.run("quantize", model, "-o", directory.path("reference"))
    #expect(reference.status == 0)
    let process = try startAndPause("quantize")
    try directory.write("new", SafetensorsBuilder.small.bytes)
    #expect(rename(directory.path("new"), model + "/model.safetensors") == 0)
    process.signal(SIGCONT)
    let run = try process.wait()
    if run.status == 0 {
      #expect(try Snapshot(out) == Snapshot(directory.path("reference")))
    } else {
      #expect(run.status == 74 && run.error.contains("changed"), "\(run.error)")
      #expect(try directory.names == ["model", "reference"])
    }
  }

  @Test(.enabled(if: Machine.hasProc, "\(Machine.needsProc)"), arguments: [["verify"], ["inspect", "--stats"]])
  func truncatedWhileReading(_ words: [String]) throws {
    let process = try startReading(words)
    try change("truncated")
    process.signal(SIGCONT)
    let run = try process.wait()
    #expect(run.errorLines.count == 1 && run.status == 74, "\(run.error)")
  }

  /// Starts a verb that only reads, and stops it when it has read some megabytes.
  private func startReading(_ words: [String]) throws -> ToolProcess {
    var path = model
    if words == ["verify"] {
      try #require(try Tool.run("convert", model, "-o", out).status == 0)
      try FileManager.default.removeItem(atPath: model)
      try FileManager.default.moveItem(atPath: out, toPath: model)
      path = model
    }
    let process = try ToolProcess([Tool.path] + words + [path, "--jobs", "1"], output: .captured, error: .captured)
    let isPaused = process.pause { process.bytesRead() > 4 << 20 }
    try #require(isPaused)
    #expect(process.bytesRead() < 80 << 20)
    return process
  }

  // MARK: - Progress

  /// Stopped for longer than the time between two lines, then let go on.
  @Test(arguments: [[], ["--quiet"]])
  func progress(_ options: [String]) throws {
    let process = try startAndPause("quantize", options: options)
    sleep(6)
    process.signal(SIGCONT)
    let run = try process.wait()
    #expect(run.status == 0)
    expectPrintable(run.error)
    let lines = run.error.split(separator: "\n").filter { !$0.hasPrefix("nibble: warning: ") }
    if options.isEmpty {
      // One for each five seconds, however long it took.
      #expect((1...max(1, Int(run.seconds / 5))).contains(lines.count))
      let form = /quantizing: \d+\.\d MB of 104\.9 MB, +\d+ %  \d+(\.\d)? [kM]?B\/s  \d+:\d\d left/
      #expect(lines.allSatisfy { $0.wholeMatch(of: form) != nil }, "\(run.error)")
    } else {
      #expect(run.error == "")
    }
  }
}
