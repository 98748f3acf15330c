#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// The two functions that know what -1 and EINTR mean. Every system call of Nibble passes through one.
enum SystemCall {
  /// Repeats `body` while a signal interrupts it; the value, or nil with `errno` set.
  static func value<T: FixedWidthInteger & SignedInteger>(_ body: () -> T) -> T? {
    while true {
      let result = body()
      if result != -1 { return result }
      if errno != EINTR { return nil }
    }
  }

  static func succeeds(_ body: () -> Int32) -> Bool { value(body) != nil }
}

/// `errno` in words.
package func errorText(_ number: Int32 = errno) -> String {
  unsafe String(cString: strerror(number))
}

extension Failure {
  /// A call on an input failed: exit code 66 when it could not be opened, 74 when reading broke.
  static func input(_ action: String, file: String, errno number: Int32 = errno) -> Failure {
    // What opening a socket, or a device without hardware, answers.
    if number == ENXIO { return Failure(.malformed, "is a socket or a device, expected a regular file", file: file) }
    let code: Code =
      switch number {
      case EIO, ESTALE, EMFILE, ENFILE, ENOMEM: .io
      default: .missing
      }
    return Failure(code, "\(action): \(errorText(number))", file: file)
  }

  /// A call on an output failed: exit code 74 for a full disk or a broken device, 73 otherwise.
  static func output(_ action: String, file: String, errno number: Int32 = errno) -> Failure {
    let code: Code =
      switch number {
      case EACCES, EPERM, EROFS, ENOENT, ENOTDIR, EEXIST, ELOOP, ENAMETOOLONG, ENOTEMPTY, EISDIR, EINVAL: .cannotCreate
      default: .io
      }
    return Failure(code, "\(action): \(errorText(number))", file: file)
  }
}
