#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// A file without a name, in `TMPDIR` or `/tmp`; its space is free again when the last who has it open is gone.
package struct TemporaryFile: ~Copyable {
  private let descriptor: Descriptor
  private let directory: String
  package private(set) var count = 0

  /// - Throws: `cannotCreate` when there can be none.
  package init() throws(Failure) {
    directory = unsafe getenv("TMPDIR").map { unsafe String(cString: $0) } ?? "/tmp"
    var path = Array("\(directory)/nibble-XXXXXX".utf8CString)
    guard let number = SystemCall.value({ unsafe mkstemp(&path) }) else {
      throw .output("cannot make a temporary file", file: directory)
    }
    descriptor = Descriptor(number)
    _ = unsafe unlink(path)
    _ = fcntl(number, F_SETFD, FD_CLOEXEC)
  }

  /// - Throws: `io` when the disk is full.
  package mutating func append(_ bytes: RawSpan) throws(Failure) {
    try unsafe bytes.withUnsafeBytes { (buffer) throws(Failure) in
      var done = 0
      while done < buffer.count {
        let rest = unsafe UnsafeRawBufferPointer(rebasing: buffer[done...])
        let written = SystemCall.value { unsafe write(descriptor.number, rest.baseAddress, rest.count) }
        guard let written else { throw .output("cannot write a temporary file", file: directory) }
        done += written
      }
    }
    count += bytes.byteCount
  }

  /// The file, to be read.
  ///
  /// - Parameter name: what it is called in messages.
  package consuming func finish(name: String) throws(Failure) -> InputFile { try InputFile(descriptor, name: name) }
}
