#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// An open file descriptor with one owner; closed when the owner goes.
struct Descriptor: ~Copyable, Sendable {
  let number: Int32

  init(_ number: Int32) { self.number = number }

  /// `openat`; nil with `errno` set.
  init?(at directory: Int32 = AT_FDCWD, _ path: String, _ flags: Int32, permissions: mode_t = 0o666) {
    let opened = SystemCall.value { unsafe openat(directory, path, flags | O_CLOEXEC, permissions) }
    guard let opened else { return nil }
    number = opened
  }

  deinit { _ = close(number) }

  /// `fstat`; nil with `errno` set.
  var status: stat? {
    var status = stat()
    return SystemCall.succeeds { unsafe fstat(number, &status) } ? status : nil
  }
}
