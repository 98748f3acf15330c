#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// The identity of a file, which tells whether it has changed: device, inode, size and both time stamps.
public struct FileIdentity: Sendable, Equatable {
  public let device: UInt64
  public let inode: UInt64
  public let size: Int
  let modified: [Int]

  /// The same file or directory, whatever happened to its contents.
  public func isSameFile(as other: FileIdentity) -> Bool {
    device == other.device && inode == other.inode
  }

  init(_ status: stat) {
    device = UInt64(truncatingIfNeeded: status.st_dev)
    inode = UInt64(status.st_ino)
    size = Int(status.st_size)
    #if canImport(Darwin)
      modified = [
        status.st_mtimespec.tv_sec, status.st_mtimespec.tv_nsec, status.st_ctimespec.tv_sec,
        status.st_ctimespec.tv_nsec,
      ]
    #else
      modified = [status.st_mtim.tv_sec, status.st_mtim.tv_nsec, status.st_ctim.tv_sec, status.st_ctim.tv_nsec]
    #endif
  }

  /// The identity behind `path`, links followed; nil when there is nothing.
  public init?(path: String) {
    var status = stat()
    guard SystemCall.succeeds({ unsafe stat(path, &status) }) else { return nil }
    self.init(status)
  }
}

extension stat {
  var kind: mode_t { st_mode & S_IFMT }

  /// The kind of the file in a user's words.
  var kindName: String {
    switch kind {
    case S_IFREG: "a regular file"
    case S_IFDIR: "a directory"
    case S_IFLNK: "a symbolic link"
    case S_IFIFO: "a named pipe"
    case S_IFSOCK: "a socket"
    case S_IFCHR, S_IFBLK: "a device"
    default: "not a regular file"
    }
  }
}
