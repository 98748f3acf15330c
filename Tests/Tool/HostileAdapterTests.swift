import Foundation
import JSON
import Safetensors
import TestSupport
import Testing

/// Every bad adapter, given to `merge`, and beside each the nearest good one.
@Suite struct HostileAdapterTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  @Test(arguments: HostileAdapter.all)
  func isRefused(_ row: HostileAdapter) throws {
    let pair = row.pair
    let base = try pair.base.write(to: directory, "base")
    let adapter = try pair.adapter.write(to: directory)
    try Refusal(status: row.exitCode, message: row.message, tensor: row.tensor).checkMerge(
      base, [adapter], in: directory, options: row.options)
  }

  @Test(arguments: HostileAdapter.all)
  func twinIsMerged(_ row: HostileAdapter) throws {
    let pair = row.twin
    let base = try pair.base.write(to: directory, "base")
    let adapter = try pair.adapter.write(to: directory)
    let before = try Snapshot(directory.path)
    let out = directory.path("out")
    let run = try Tool.run(["merge", base, adapter, "-o", out, "--json"] + row.options)
    #expect(run.status == 0, "\(run.error)")
    let warnings = parse(run.output)?["warnings"]?.array ?? []
    if let warning = row.warning {
      #expect(warnings.contains { $0.string?.contains(warning) == true }, "\(run.error)")
    } else if !row.name.contains("fan_in_fan_out") {
      #expect(run.error == "", "\(run.error)")
    }
    let verified = try Tool.run("verify", out)
    #expect(verified.status == 0, "\(verified.output)")
    #expect(parse(run.output)?["changes"]?.array?.isEmpty == false)
    try FileManager.default.removeItem(atPath: out)
    #expect(try Snapshot(directory.path) == before)
  }
}

extension Refusal {
  /// Merges twice, with and without `--json`, and holds both to the same answer: nothing written, nothing
  /// altered, within the time for a small input.
  func checkMerge(
    _ base: String, _ adapters: [String], in directory: TemporaryDirectory, options: [String] = [], limit: Double = 10,
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let before = try Snapshot(directory.path)
    let words = ["merge", base] + adapters + ["-o", directory.path("refused-output"), "--quiet"] + options
    let run = try Tool.run(words + ["--json"], limit: limit, sourceLocation: sourceLocation)
    check(run, "merge", sourceLocation)
    if MemoryTests.isRelease {
      #expect(run.residentBytes <= 64 << 20, "\(run.residentBytes >> 20) MiB", sourceLocation: sourceLocation)
    }
    let plain = try Tool.run(words, limit: limit, sourceLocation: sourceLocation)
    #expect(plain.status == run.status && plain.error == run.error, "\(plain.error)", sourceLocation: sourceLocation)
    #expect(plain.output == "", sourceLocation: sourceLocation)
    #expect(try Snapshot(directory.path) == before, "something was written", sourceLocation: sourceLocation)
  }
}
