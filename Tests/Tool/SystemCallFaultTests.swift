import Foundation
import TestSupport
import Testing

/// Fails one system call after another, the first, the second, … until a run meets none that fails: the
/// output is whole or absent every time.
@Suite(.enabled(if: Machine.canTrace, "\(Machine.needsStrace)"))
struct SystemCallFaultTests {
  let directory: TemporaryDirectory
  let model: String
  let out: String
  let reference: Snapshot
  let source: Snapshot

  init() throws {
    directory = try TemporaryDirectory()
    model = try TestModel(layers: 1).write(
      to: directory, "model",
      shards: [
        [TestModel.tensor("a.x_proj.weight", "BF16", [64, 64], seed: 1)],
        [
          TestModel.tensor("b.x_proj.weight", "BF16", [64, 64], seed: 2),
          TestModel.tensor("b.norm.weight", "BF16", [64], seed: 3),
        ],
      ])
    out = directory.path("out")
    try #require(try Tool.run("quantize", model, "-o", out, "--max-shard-size", "4kB").status == 0)
    reference = try Snapshot(out)
    source = try Snapshot(model)
    #expect(reference.entries.count == 6)
    try FileManager.default.removeItem(atPath: out)
  }

  private func run(injecting fault: String, log: String = "/dev/null", options: [String] = []) throws -> Tool.Result {
    let process = try ToolProcess(
      Strace.injecting(fault, log: log)
        + [Tool.path, "quantize", model, "-o", out, "--max-shard-size", "4kB", "--jobs", "1", "--quiet"] + options,
      output: .captured, error: .captured)
    return try process.wait(allowsKill: fault.contains("SIGKILL"))
  }

  /// Complete and as it should be, or not there at all.
  private func expectWholeOrAbsent(_ fault: String) throws -> Bool {
    let exists = FileManager.default.fileExists(atPath: out)
    if exists { #expect(try Snapshot(out) == reference, "\(fault)") }
    #expect(try Snapshot(model) == source, "\(fault)")
    return exists
  }

  struct Fault: Sendable, CustomTestStringConvertible {
    var call: String
    var error: String
    var testDescription: String { "\(call) \(error)" }
  }

  static let faults = [
    Fault(call: "write", error: "EIO"), Fault(call: "write", error: "ENOSPC"), Fault(call: "write", error: "EDQUOT"),
    Fault(call: "fsync", error: "EIO"), Fault(call: "renameat,renameat2", error: "EIO"),
    Fault(call: "mkdirat", error: "EIO"),
    Fault(call: "pread64", error: "EIO"),
  ]

  @Test(arguments: faults)
  func error(_ fault: Fault) throws {
    var count = 0
    let before = try Strace.count(fault.call, of: ["--version"], butWrites: true)
    while count < 100 {
      let injected = "\(fault.call):error=\(fault.error):when=\(before + count + 1)"
      let run = try run(injecting: injected)
      let exists = try expectWholeOrAbsent(injected)
      #expect(try directory.names == (exists ? ["model", "out"] : ["model"]), "\(injected)")
      if run.status == 0 {
        #expect(exists)
        break
      }
      count += 1
      #expect(run.status == 74, "\(injected): \(run.error)")
      // The report, and the making durable of a name that is there already, come after the output.
      let isLate = run.error.contains("standard output") || run.error.contains("new name durable")
      #expect(exists == isLate, "\(injected): \(run.error)")
      #expect(run.errorLines.count == 1, "\(run.error)")
      if exists { try FileManager.default.removeItem(atPath: out) }
    }
    let least = ["write": 8, "fsync": 8, "pread64": 4]
    #expect(count >= least[fault.call] ?? 1 && count < 100, "only \(count) calls of \(fault.call)")
  }

  /// After a failed fsync the kernel may have dropped the pages: a second one that succeeds means nothing.
  @Test func failedSyncIsNotRepeated() throws {
    let log = directory.path("log")
    let run = try run(injecting: "fsync:error=EIO:when=1", log: log)
    #expect(
      run.status == 74 && run.error.contains("cannot make it durable (fsync): Input/output error"), "\(run.error)")
    let calls = try String(contentsOfFile: log, encoding: .utf8).split(separator: "\n").filter { $0.contains("fsync(") }
    #expect(calls.count == 1 && calls[0].contains("INJECTED"), "\(calls)")
  }

  /// Calls that a signal interrupts are repeated.
  @Test(arguments: ["write", "pread64", "openat", "renameat"])
  func interruptedCall(_ call: String) throws {
    let first = try Strace.count(call, of: ["--version"], butWrites: true) + 1
    let run = try run(injecting: "\(call):error=EINTR:when=\(first)+2")
    #expect(run.status == 0, "\(run.error)")
    #expect(try Snapshot(out) == reference)
  }

  /// No lock on this file system: a directory of our own making is still safe.
  @Test(arguments: ["ENOSYS", "EOPNOTSUPP", "ENOLCK"])
  func lockThatDoesNotExist(_ error: String) throws {
    let run = try run(injecting: "flock:error=\(error)")
    #expect(run.status == 0, "\(run.error)")
    #expect(try Snapshot(out) == reference)
  }

  /// Killed before each call: what is there is whole, and the next run succeeds and cleans up.
  @Test(arguments: ["write", "fsync", "renameat", "unlinkat"])
  func killed(_ call: String) throws {
    for count in 1..<60 {
      let injected = "\(call):signal=SIGKILL:when=\(count)"
      let run = try run(injecting: injected, options: ["--force"])
      _ = try expectWholeOrAbsent(injected)
      if run.status == 0 {
        #expect(call == "unlinkat" || count > 1)
        break
      }
      #expect(run.status == 137, "\(injected): \(run.error)")
      let again = try Tool.run("quantize", model, "-o", out, "--max-shard-size", "4kB", "--quiet", "--force")
      #expect(again.status == 0, "\(injected): \(again.error)")
      #expect(try Snapshot(out) == reference)
      #expect(try directory.names == ["model", "out"], "\(injected)")
      try FileManager.default.removeItem(atPath: out)
    }
  }

  /// Nothing outside the model directory is opened, run or connected to, whatever an index or a link says.
  @Test(
    arguments: HostileDirectory.safetensors.filter {
      $0.exitCode == 65 && ($0.name.hasPrefix("weight_map") || $0.name.contains("link"))
    })
  func staysInside(_ row: HostileDirectory) throws {
    let path = try row.make(in: directory.makeDirectory("d"))
    let log = directory.path("log")
    let run = try Tool.run(
      ["inspect", path],
      through: ["strace", "-f", "-qq", "-y", "-o", log, "-e", "trace=open,openat,openat2,execve,connect,socket"])
    #expect(run.status == 65)
    let calls = try String(contentsOfFile: log, encoding: .utf8).split(separator: "\n")
    #expect(calls.filter { $0.contains("execve(") }.count == 1)
    #expect(!calls.contains { $0.contains("connect(") || $0.contains("socket(") })
    var opened = 0
    for call in calls where call.contains("open") && !call.contains("= -1") {
      guard let result = call.split(separator: "<").last?.split(separator: ">").first else { continue }
      let isSystem = ["/usr/", "/lib", "/proc/", "/sys/", "/dev/", "/etc/ld.so", "/opt/", "/etc/localtime"].contains {
        result.hasPrefix($0)
      }
      let isLibrary = result.hasSuffix(".so") || result.contains(".so.")
      #expect(isSystem || isLibrary || result.hasPrefix(directory.path("d")), "\(call)")
      #expect(!["/etc/passwd", "/etc/shadow", "/etc/hostname"].contains(String(result)))
      if result.hasPrefix(directory.path("d")) { opened += 1 }
    }
    #expect(opened > 0)
  }
}

/// The program that makes system calls fail.
enum Strace {
  static func injecting(_ fault: String, log: String = "/dev/null") -> [String] {
    ["strace", "-f", "-qq", "-o", log, "-e", "trace=\(fault.prefix { $0 != ":" })", "-e", "inject=\(fault)"]
  }

  /// How often a call is made, by the program loader for instance.
  ///
  /// - Parameter butWrites: the one `write` of the report does not count.
  static func count(_ call: String, of arguments: [String], butWrites: Bool = false) throws -> Int {
    if butWrites, call == "write" { return 0 }
    let directory = try TemporaryDirectory()
    let log = directory.path("log")
    let run = try Tool.run(arguments, through: ["strace", "-f", "-qq", "-o", log, "-e", "trace=\(call)"])
    try #require(run.status == 0)
    let lines = String(decoding: try directory.read("log"), as: UTF8.self).split(separator: "\n")
    return lines.count { line in call.split(separator: ",").contains { line.contains("\($0)(") } }
  }
}
