import Foundation
import TestSupport
import Testing

#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// What this machine lets a test do to the tool. Each has a reason that is printed when a test is skipped.
enum Machine {
  static let isRoot = geteuid() == 0

  /// The path of a program, or nil.
  static func program(_ name: String) -> String? {
    let path = ProcessInfo.processInfo.environment["PATH"] ?? ""
    let directories = path.components(separatedBy: ":") + ["/usr/sbin", "/sbin"]
    return directories.map { $0 + "/" + name }.first(where: FileManager.default.isExecutableFile)
  }

  static let needsStrace = "needs strace and the right to trace"
  static let canTrace: Bool = {
    guard program("strace") != nil else { return false }
    return succeeds(["strace", "-qq", "-e", "trace=none", "/bin/true"])
  }()

  static let needsMounts = "needs root and the right to mount"
  static let canMount: Bool = {
    guard isRoot, program("mount") != nil, let directory = try? TemporaryDirectory() else { return false }
    guard succeeds(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", directory.path]) else { return false }
    return succeeds(["umount", directory.path])
  }()

  static let needsOtherUser = "needs root, setpriv, and a tool that every user may run"
  /// Runs a command as nobody: root may write anywhere.
  static let asNobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
  static let canBeNobody: Bool = isRoot && succeeds(asNobody + [Tool.path, "--version"])

  static let needsProc = "needs /proc"
  static let hasProc = FileManager.default.isReadableFile(atPath: "/proc/self/io")

  static func succeeds(_ command: [String]) -> Bool {
    guard let process = try? ToolProcess(command, output: .captured, error: .captured),
      let result = try? process.wait(allowsKill: true)
    else { return false }
    return result.status == 0
  }
}

/// A file system of a few megabytes, unmounted when the object goes.
final class SmallDisk {
  let path: String
  private let directory: TemporaryDirectory

  struct CannotMount: Error {}

  /// - Parameter options: of tmpfs, such as `size=1m`.
  init(_ options: String) throws {
    directory = try TemporaryDirectory()
    path = try directory.makeDirectory("disk")
    guard Machine.succeeds(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path]) else { throw CannotMount() }
  }

  var names: [String] { get throws { try FileManager.default.contentsOfDirectory(atPath: path).sorted() } }

  /// Takes all but `bytes` of what is left.
  func fill(leaving bytes: Int) throws {
    let handle = open(path + "/filler", O_WRONLY | O_CREAT, 0o644)
    defer { close(handle) }
    var status = statvfs()
    statvfs(path, &status)
    let free = Int(status.f_bavail) * Int(status.f_frsize) - bytes
    let chunk = [UInt8](repeating: 1, count: 65_536)
    var done = 0
    while done < free {
      let count = write(handle, chunk, min(chunk.count, free - done))
      if count <= 0 { break }
      done += count
    }
  }

  deinit {
    _ = Machine.succeeds(["umount", path])
  }
}
