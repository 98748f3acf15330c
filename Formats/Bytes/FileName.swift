import CSystem

#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// Names in directories.
public enum FileName {
  /// The last component of a path; the path itself where it has none.
  package static func last(of path: String) -> String { path.split(separator: "/").last.map(String.init) ?? path }

  /// Where a symbolic link leads, every link on the way followed; nil for anything that is no link.
  public static func target(of path: String) -> String? {
    var status = stat()
    guard SystemCall.succeeds({ unsafe lstat(path, &status) }), status.kind == S_IFLNK else { return nil }
    return real(path) ?? "a file that is not there"
  }

  /// The path without links; nil when there is nothing.
  public static func real(_ path: String) -> String? {
    guard let resolved = unsafe realpath(path, nil) else { return nil }
    defer { unsafe free(resolved) }
    return unsafe String(cString: resolved)
  }

  /// Removes a file, if it is still there, and makes that durable.
  public static func remove(_ path: String) throws(Failure) {
    guard SystemCall.succeeds({ unsafe unlink(path) }) || errno == ENOENT else {
      throw .output("cannot remove it", file: path)
    }
    let name = path.split(separator: "/").last ?? ""
    let parent = path.dropLast(name.count)
    guard let directory = Descriptor(parent.isEmpty ? "." : String(parent), O_RDONLY | O_DIRECTORY),
      nibble_full_sync(directory.number) == 0
    else { throw Failure(.io, "cannot make its removal durable (fsync): \(errorText())", file: path) }
  }
}
