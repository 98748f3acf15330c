import Foundation

#if os(Linux)
  import Glibc

  /// What a process of its own may take, for tests with `#expect(processExitsWith:)`.
  public enum Budget {
    /// Processor seconds, which nothing else on the machine lengthens, after which the kernel ends the process: only work
    /// that grows with the square of what is read takes so many.
    private static let processorTime: rlim_t = 60

    /// Ends the process with a message when work fails or takes more memory than allowed.
    ///
    /// - Parameter limit: bytes by which the largest resident set may grow.
    public static func check(limit: Int, _ work: () throws -> Void) {
      var time = rlimit(rlim_cur: processorTime, rlim_max: processorTime)
      setrlimit(__rlimit_resource_t(RLIMIT_CPU.rawValue), &time)
      do {
        let before = try peakMemory()
        try work()
        let used = try peakMemory() - before
        if used < limit { return }
        FileHandle.standardError.write(Data("\(used >> 20) MiB, allowed are \(limit >> 20)\n".utf8))
      } catch {
        FileHandle.standardError.write(Data("\(error)\n".utf8))
      }
      exit(1)
    }

    /// Bytes of the largest resident set so far.
    private static func peakMemory() throws -> Int {
      let status = try String(contentsOfFile: "/proc/self/status", encoding: .utf8)
      let line = status.split(separator: "\n").first { $0.hasPrefix("VmHWM:") }
      let words = line?.split(whereSeparator: { $0 == " " || $0 == "\t" }) ?? []
      return (words.dropFirst().first.flatMap { Int($0) } ?? 0) << 10
    }
  }
#endif
