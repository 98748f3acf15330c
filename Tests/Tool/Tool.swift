import Foundation
import TestSupport
import Testing

#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// The binary under test: what `NIBBLE` names, else the debug build beside the tests.
enum Tool {
  static let path: String = {
    if let named = ProcessInfo.processInfo.environment["NIBBLE"] { return named }
    return debugBuild + "/nibble"
  }()

  /// Where SwiftPM put what it built for the tests.
  static let debugBuild: String = {
    let beside = URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent().path
    return FileManager.default.isExecutableFile(atPath: beside + "/nibble") ? beside : repository + "/.build/debug"
  }()

  /// The root of the package.
  static let repository = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().path

  /// What a finished process left behind.
  struct Result: Sendable {
    /// As a shell gives it: 128 + N after signal N.
    var status: Int32
    var output: String
    var error: String
    var seconds: Double
    /// The largest resident set that was seen, in bytes.
    var residentBytes: Int
    /// By system calls, the libraries it is linked to included; 0 where there is no `/proc`.
    var bytesRead: Int

    /// Lines on standard error that are no warnings.
    var errorLines: [Substring] {
      error.split(separator: "\n").filter { !$0.hasPrefix("nibble: warning: ") }
    }
    var warnings: [Substring] { error.split(separator: "\n").filter { $0.hasPrefix("nibble: warning: ") } }
  }

  enum Stream: Sendable {
    case captured, closed
    case file(String)
  }

  /// Runs the tool to its end.
  ///
  /// - Parameter wrapper: a program and its arguments in front of the tool, such as `strace`.
  @discardableResult
  static func run(
    _ arguments: [String], through wrapper: [String] = [], output: Stream = .captured, error: Stream = .captured,
    limit: Double = 60, sourceLocation: SourceLocation = #_sourceLocation
  ) throws -> Result {
    let process = try ToolProcess(wrapper + [path] + arguments, output: output, error: error)
    return try process.wait(limit: limit, sourceLocation: sourceLocation)
  }

  @discardableResult
  static func run(_ arguments: String..., sourceLocation: SourceLocation = #_sourceLocation) throws -> Result {
    try run(arguments, sourceLocation: sourceLocation)
  }

  static func start(_ arguments: String...) throws -> ToolProcess {
    try ToolProcess([path] + arguments, output: .captured, error: .captured)
  }
}

/// A running process, whose output goes to files of its own: a pipe would be inherited by every process
/// that another test starts at the same moment.
final class ToolProcess {
  let identifier: pid_t
  private let started = Date()
  private let directory: TemporaryDirectory

  struct CannotStart: Error { var path: String, reason: String }

  init(_ command: [String], output: Tool.Stream, error: Tool.Stream) throws {
    directory = try TemporaryDirectory()
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    for (number, stream) in [(Int32(1), output), (Int32(2), error)] {
      switch stream {
      case .captured:
        let path = try directory.write("\(number)", [])
        posix_spawn_file_actions_addopen(&actions, number, path, O_WRONLY | O_APPEND, 0)
      case .closed: posix_spawn_file_actions_addclose(&actions, number)
      case .file(let path): posix_spawn_file_actions_addopen(&actions, number, path, O_WRONLY, 0)
      }
    }
    #if canImport(Glibc)
      // Nothing that this process has open is to be handed down. Closing what is not open is no error here.
      for descriptor in 3..<Int32(256) { posix_spawn_file_actions_addclose(&actions, descriptor) }
    #endif
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    // What the test process ignores or blocks must not be handed down.
    var all = sigset_t()
    sigfillset(&all)
    sigdelset(&all, SIGKILL)
    sigdelset(&all, SIGSTOP)
    posix_spawnattr_setsigdefault(&attributes, &all)
    var none = sigset_t()
    sigemptyset(&none)
    posix_spawnattr_setsigmask(&attributes, &none)
    var flags = Int16(POSIX_SPAWN_SETSIGDEF) | Int16(POSIX_SPAWN_SETSIGMASK)
    #if canImport(Darwin)
      flags |= Int16(POSIX_SPAWN_CLOEXEC_DEFAULT)
    #endif
    posix_spawnattr_setflags(&attributes, flags)
    var child: pid_t = 0
    var arguments: [UnsafeMutablePointer<CChar>?] = command.map { strdup($0) }
    arguments.append(nil)
    defer { for argument in arguments { free(argument) } }
    let status = posix_spawnp(&child, command[0], &actions, &attributes, arguments, environ)
    guard status == 0 else { throw CannotStart(path: command[0], reason: String(cString: strerror(status))) }
    identifier = child
  }

  func signal(_ number: Int32) { kill(identifier, number) }

  private var hasEnded: Bool {
    var information = siginfo_t()
    guard waitid(P_PID, id_t(identifier), &information, WEXITED | WNOHANG | WNOWAIT) == 0 else { return true }
    return information.si_signo != 0
  }

  /// Stops the process where it is as soon as `condition` holds.
  ///
  /// - Returns: false when the process ended before.
  func pause(when condition: () -> Bool) -> Bool {
    while !condition() {
      if hasEnded { return false }
      usleep(100)
    }
    signal(SIGSTOP)
    return !hasEnded
  }

  /// Waits for the end. A crash fails the test, whatever was expected.
  func wait(
    limit: Double = 60, allowsKill: Bool = false, sourceLocation: SourceLocation = #_sourceLocation
  ) throws -> Tool.Result {
    var resident = 0
    while !hasEnded {
      resident = max(resident, residentBytes())
      if Date().timeIntervalSince(started) > limit {
        signal(SIGKILL)
        Issue.record("still running after \(limit) s", sourceLocation: sourceLocation)
      }
      usleep(1000)
    }
    let seconds = Date().timeIntervalSince(started)
    let bytesRead = bytesRead()
    var status: Int32 = 0
    waitpid(identifier, &status, 0)
    let end = status & 0x7F
    let code = end == 0 ? (status >> 8) & 0xFF : 128 + end
    let texts = try ["1", "2"].map { name in
      FileManager.default.fileExists(atPath: directory.path(name))
        ? String(decoding: try directory.read(name), as: UTF8.self) : ""
    }
    let crashes: Set<Int32> = [132, 133, 134, 135, 136, 137, 139, 153]
    if end != 0 || crashes.contains(code), !(allowsKill && code == 137) {
      Issue.record("died of a signal: \(code)\n\(texts[1])", sourceLocation: sourceLocation)
    }
    return Tool.Result(
      status: code, output: texts[0], error: texts[1], seconds: seconds, residentBytes: resident,
      bytesRead: bytesRead)
  }

  /// So far; of one that has ended, until it is waited for, all.
  func bytesRead() -> Int {
    let text = (try? String(contentsOfFile: "/proc/\(identifier)/io", encoding: .utf8)) ?? ""
    let line = text.split(separator: "\n").first { $0.hasPrefix("rchar: ") }
    return line.flatMap { Int($0.dropFirst(7)) } ?? 0
  }

  /// `VmHWM`. Not `ru_maxrss`: that of a child starts with what the parent had when it was spawned.
  private func residentBytes() -> Int {
    #if canImport(Glibc)
      // Until the kernel has put the program in its place, the child's memory is this process's.
      let files = FileManager.default
      guard
        let program = try? files.destinationOfSymbolicLink(atPath: "/proc/\(identifier)/exe"),
        program != (try? files.destinationOfSymbolicLink(atPath: "/proc/self/exe")),
        let text = try? String(contentsOfFile: "/proc/\(identifier)/status", encoding: .utf8),
        let line = text.split(separator: "\n").first(where: { $0.hasPrefix("VmHWM:") }),
        let kilobytes = line.split(whereSeparator: { $0 == " " || $0 == "\t" }).dropFirst().first.flatMap({ Int($0) })
      else { return 0 }
      return kilobytes * 1024
    #else
      return 0
    #endif
  }
}
