import Bytes
import Foundation
import Safetensors
import Tensors
import TestSupport
import Testing

/// Time and memory of reading headers. Bounds are those promised, for an optimized build on an idle
/// machine with room to spare; a debug build gets smaller files.
@Suite(.serialized) struct BudgetTests {
  @Test func thirteenBillionParametersAreListedAtOnce() throws {
    let temporary = try TemporaryDirectory()
    try SparseCheckpoint.llama13B(in: temporary.path)
    var best = Duration.seconds(100)
    for _ in 0..<10 {
      let start = ContinuousClock.now
      let checkpoint = try SafetensorsCheckpoint(path: temporary.path)
      best = min(best, ContinuousClock.now - start)
      #expect(checkpoint.tensors.count == 363 && checkpoint.warnings.isEmpty)
      #expect(checkpoint.tensors.map(\.elementCount).reduce(0, +) == 13_016_028_160)
    }
    #expect(best < (Build.isOptimized ? .milliseconds(10) : .milliseconds(300)))
  }

  #if os(Linux)
    /// A 16 MB header, within 100 MiB and 2 s; a fifth of it for a debug build.
    @Test func largeHeader() async throws {
      let temporary = try TemporaryDirectory()
      let path = temporary.path("m.safetensors")
      try SparseCheckpoint.many(Build.isOptimized ? 150_000 : 30_000, to: path)
      await #expect(processExitsWith: .success) { [path = path as String] in
        BudgetTests.open(path, limit: Build.isOptimized ? 100 << 20 : 20 << 20, seconds: Build.isOptimized ? 2 : 20)
      }
    }

    /// The largest legal header, within 1 GiB and 10 s.
    @Test(.enabled(if: Build.isOptimized, "100 MB of header need an optimized build")) func largestHeader() async throws
    {
      let temporary = try TemporaryDirectory()
      let path = temporary.path("m.safetensors")
      try SparseCheckpoint.many(900_000, to: path)
      await #expect(processExitsWith: .success) { [path = path as String] in
        BudgetTests.open(path, limit: 1 << 30, seconds: 10)
      }
    }

    /// Opens a file and ends the process with a message when that takes too much of anything.
    static func open(_ path: String, limit: Int, seconds: Int) {
      do {
        let before = try peakMemory()
        // Processor time, which other tests at the same time do not lengthen.
        let start = clock()
        let checkpoint = try SafetensorsCheckpoint(path: path)
        let elapsed = Double(clock() - start) / Double(CLOCKS_PER_SEC)
        let used = try peakMemory() - before
        guard !checkpoint.tensors.isEmpty, used < limit, elapsed < Double(seconds) else {
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
