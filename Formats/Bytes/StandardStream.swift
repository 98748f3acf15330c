#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// Standard output and standard error, with write errors seen (`print` to a full disk reports success).
public struct StandardStream: Sendable {
  public static let output = StandardStream(descriptor: 1, name: "standard output")
  public static let error = StandardStream(descriptor: 2, name: "standard error")

  private let descriptor: Int32
  private let name: String

  /// - Throws: `io` when the text cannot be written whole.
  public func write(_ text: String) throws(Failure) { try write(Array(text.utf8)) }

  /// - Throws: `io` when the bytes cannot be written whole.
  public func write(_ bytes: [UInt8]) throws(Failure) {
    var failure: Failure?
    unsafe bytes.withUnsafeBufferPointer { bytes in
      var done = 0
      while done < bytes.count {
        let rest = unsafe UnsafeBufferPointer(rebasing: bytes[done...])
        #if canImport(Glibc)
          let count = SystemCall.value { unsafe Glibc.write(descriptor, rest.baseAddress, rest.count) }
        #else
          let count = SystemCall.value { unsafe Darwin.write(descriptor, rest.baseAddress, rest.count) }
        #endif
        guard let count else {
          failure = Failure(errno == EPIPE ? .brokenPipe : .io, "cannot write: \(errorText())", file: name)
          return
        }
        done += count
      }
    }
    if let failure { throw failure }
  }

  public var isTerminal: Bool { isatty(descriptor) == 1 }

  /// Columns of the terminal, 80 when it does not say.
  public var columns: Int {
    var size = winsize()
    let answered = unsafe ioctl(descriptor, UInt(TIOCGWINSZ), &size) == 0
    return answered && size.ws_col > 0 ? Int(size.ws_col) : 80
  }
}
