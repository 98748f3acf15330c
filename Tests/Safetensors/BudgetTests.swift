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

    /// Opens a file and ends the process with a message when that takes too much memory.
    static func open(_ path: String, limit: Int) {
      Budget.check(limit: limit) {
        let tensors = try SafetensorsCheckpoint(path: path).tensors
        precondition(!tensors.isEmpty)
      }
    }
  #endif
}
