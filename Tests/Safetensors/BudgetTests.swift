import Bytes
import Foundation
import Safetensors
import Tensors
import TestSupport
import Testing

/// What reading headers takes. Memory is bounded as promised, and a debug build gets smaller files; how fast it is
/// `make bench` says.
@Suite(.serialized) struct BudgetTests {
  @Test func thirteenBillionParametersAreListed() throws {
    let temporary = try TemporaryDirectory()
    try SparseCheckpoint.llama13B(in: temporary.path)
    let checkpoint = try SafetensorsCheckpoint(path: temporary.path)
    #expect(checkpoint.tensors.count == 363 && checkpoint.warnings.isEmpty)
    #expect(checkpoint.tensors.map(\.elementCount).reduce(0, +) == 13_016_028_160)
  }

  #if os(Linux)
    /// A 16 MB header, within 100 MiB; a fifth of it for a debug build.
    @Test func largeHeader() async throws {
      let temporary = try TemporaryDirectory()
      let path = temporary.path("m.safetensors")
      try SparseCheckpoint.many(Build.isOptimized ? 150_000 : 30_000, to: path)
      await #expect(processExitsWith: .success) { [path = path as String] in
        BudgetTests.open(path, limit: Build.isOptimized ? 100 << 20 : 20 << 20)
      }
    }

    /// The largest legal header, within 1 GiB.
    @Test(.enabled(if: Build.isOptimized, "100 MB of header need an optimized build")) func largestHeader() async throws
    {
      let temporary = try TemporaryDirectory()
      let path = temporary.path("m.safetensors")
      try SparseCheckpoint.many(900_000, to: path)
      await #expect(processExitsWith: .success) { [path = path as String] in
        BudgetTests.open(path, limit: 1 << 30)
      }
    }

    /// Opens a file and ends the process with a message when that takes too much memory, or so much time that something
    /// must compare each name with each.
    static func open(_ path: String, limit: Int) {
      do {
        let before = try peakMemory()
        // Processor time, which other tests at the same time do not lengthen.
        let start = clock()
        let checkpoint = try SafetensorsCheckpoint(path: path)
        let elapsed = Double(clock() - start) / Double(CLOCKS_PER_SEC)
        let used = try peakMemory() - before
        guard !checkpoint.tensors.isEmpty, used < limit, elapsed < 60 else {
          FileHandle.standardError.write(Data("\(used >> 20) MiB, \(elapsed) s\n".utf8))
          exit(1)
        }
      } catch {
        FileHandle.standardError.write(Data("\(error)\n".utf8))
        exit(1)
      }
    }

    /// Bytes of the largest resident set so far.
    private static func peakMemory() throws -> Int {
      let status = try String(contentsOfFile: "/proc/self/status", encoding: .utf8)
      let line = status.split(separator: "\n").first { $0.hasPrefix("VmHWM:") }
      let kibibytes = line.flatMap { $0.split(whereSeparator: { $0 == " " || $0 == "\t" }).dropFirst().first }.flatMap {
        Int($0)
      }
      return (kibibytes ?? 0) << 10
    }
  #endif
}
