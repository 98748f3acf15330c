import Foundation
import TestSupport
import Testing

#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// Disks that fill up and devices that fail: exit code 74, nothing half-written, input as before.
@Suite struct DiskFaultTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  // MARK: - Full disks

  @Test(.enabled(if: Machine.canMount, "\(Machine.needsMounts)"))
  func diskTooSmall() throws {
    try InterruptedRunTests.writeZeros(directory, "model/model.safetensors", rows: 1024, columns: 2048)
    let disk = try SmallDisk("size=1m")
    let run = try Tool.run("quantize", directory.path("model"), "-o", disk.path + "/out", "--json", "--quiet")
    Refusal(status: 74, message: "bytes) are free there").check(run, "quantize")
    #expect(
      run.error.contains(/needs 1\.\d MB \(1\d{6} bytes\), but only 1\.0 MB \(1048576 bytes\) are free there/),
      "\(run.error)")
    #expect(try disk.names.isEmpty)
    // The plan alone needs no room; a disk twice as large has room.
    #expect(try Tool.run("quantize", directory.path("model"), "-o", disk.path + "/out", "--dry-run").status == 0)
    let larger = try SmallDisk("size=2m")
    #expect(try Tool.run("quantize", directory.path("model"), "-o", larger.path + "/out").status == 0)
  }

  @Test(.enabled(if: Machine.canMount, "\(Machine.needsMounts)"), arguments: ["quantize", "convert"])
  func diskFilledMeanwhile(_ verb: String) throws {
    try InterruptedRunTests.writeZeros(directory, "model/model.safetensors", rows: 25_600, columns: 2048)
    let before = try Snapshot(directory.path)
    let disk = try SmallDisk("size=120m")
    let process = try ToolProcess(
      [Tool.path, verb, directory.path("model"), "-o", disk.path + "/out", "--jobs", "1", "--json", "--quiet"],
      output: .captured, error: .captured)
    let isPaused = process.pause {
      var status = stat()
      return stat(disk.path + "/.out.nibble-partial/model.safetensors", &status) == 0 && status.st_size > 1 << 20
    }
    try #require(isPaused)
    try disk.fill(leaving: 1 << 20)
    process.signal(SIGCONT)
    let run = try process.wait()
    Refusal(status: 74, message: "model.safetensors: cannot write: No space left on device, at offset ").check(
      run, verb)
    #expect(try disk.names == ["filler"])
    #expect(try Snapshot(directory.path) == before)
  }

  @Test(.enabled(if: Machine.canMount, "\(Machine.needsMounts)"), arguments: 1...7)
  func inodes(_ count: Int) throws {
    let model = try TestModel(layers: 1).write(to: directory)
    let disk = try SmallDisk("size=4m,nr_inodes=\(count)")
    let run = try Tool.run("quantize", model, "-o", disk.path + "/out", "--json", "--quiet")
    // The root of the disk, the directory, and four files.
    if count >= 6 {
      #expect(run.status == 0, "\(run.error)")
    } else {
      Refusal(status: 74, message: "No space left on device").check(run, "quantize")
      #expect(try disk.names.isEmpty)
    }
  }

  /// A limit on the size of a file is an error of the write that meets it, not the signal SIGXFSZ.
  @Test func fileSizeLimit() throws {
    let model = try TestModel(layers: 1, width: 512).write(to: directory)
    func run(_ blocks: Int) throws -> Tool.Result {
      try Tool.run(
        ["quantize", model, "-o", directory.path("out"), "--quiet", "--json"],
        through: ["/bin/sh", "-c", "ulimit -f \(blocks); exec \"$0\" \"$@\""])
    }
    let failed = try run(100)
    Refusal(status: 74, message: "model.safetensors: cannot write: File too large, at offset ").check(
      failed, "quantize")
    #expect(try directory.names == ["model"])
    #expect(try run(100_000).status == 0)
  }

  // MARK: - Standard output

  @Test(
    .enabled(if: FileManager.default.fileExists(atPath: "/dev/full"), "needs /dev/full"),
    arguments: [
      ["--help"], ["--version"], ["quantize", "--help"], ["inspect", "MODEL"], ["inspect", "MODEL", "--json"],
      ["verify", "MODEL"],
      ["verify", "MODEL", "--json"], ["quantize", "MODEL", "-o", "OUT"], ["convert", "MODEL", "-o", "OUT", "--json"],
    ])
  func fullStandardOutput(_ words: [String]) throws {
    let model = try TestModel(layers: 1).write(to: directory)
    let arguments = words.map { $0 == "MODEL" ? model : $0 == "OUT" ? directory.path("out") : $0 }
    let run = try Tool.run(arguments, output: .file("/dev/full"))
    #expect(run.status == 74)
    #expect(run.errorLines == ["nibble: error: standard output: cannot write: No space left on device"])
    let closed = try Tool.run(arguments + (arguments.contains("-o") ? ["--force"] : []), output: .closed)
    #expect(closed.status == 74)
    #expect(closed.errorLines.count == 1)
    // The checkpoint was complete before the report; nothing of the report went into it.
    if arguments.contains("-o") { #expect(try Tool.run("verify", directory.path("out")).status == 0) }
  }

  @Test(arguments: [["quantize", "MODEL", "-o", "OUT"], ["inspect", "MODEL"], ["verify", "MODEL"]])
  func closedStandardError(_ words: [String]) throws {
    let model = try TestModel(layers: 1).write(to: directory)
    let before = try Snapshot(model)
    let run = try Tool.run(
      words.map { $0 == "MODEL" ? model : $0 == "OUT" ? directory.path("out") : $0 }, error: .closed)
    #expect(run.status == 0)
    if words.contains("-o") { #expect(try Tool.run("verify", directory.path("out")).status == 0) }
    #expect(try Snapshot(model) == before)
  }

  @Test func pipeThatNobodyReads() throws {
    var model = TestModel([])
    model.tensors = (0..<4000).map { TestModel.tensor("model.layers.\($0).norm.weight", "BF16", [4], seed: 1) }
    let path = try model.write(to: directory)
    let command = "\"$0\" \"$@\" | head -n 1; exit ${PIPESTATUS:-0}"
    let run = try Tool.run(["inspect", path], through: ["/bin/sh", "-c", command])
    #expect(run.output.hasPrefix("tensor") && run.output.split(separator: "\n").count == 1)
    #expect(run.errorLines.count <= 1)
  }
}
