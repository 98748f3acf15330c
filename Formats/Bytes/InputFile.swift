#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// An open regular file that is only read.
///
/// Bulk data goes through `read(at:into:)` (`pread`): a file that shrinks or a medium that fails is then
/// an error, where a memory map would be a fatal signal. `map()` gives the zero-copy view.
public final class InputFile: Sendable {
  /// The file's name as the user would recognise it.
  public let name: String
  /// The identity taken when the file was opened.
  public let identity: FileIdentity
  private let descriptor: Descriptor

  public var size: Int { identity.size }

  var descriptorNumber: Int32 { descriptor.number }

  /// Names that the file has.
  public var linkCount: Int { descriptor.status.map { Int($0.st_nlink) } ?? 1 }

  var permissions: mode_t? { descriptor.status.map { $0.st_mode & 0o777 } }

  /// Opens what the user named; a symbolic link is followed.
  ///
  /// - Throws: `missing` when there is no such file or it cannot be read; `malformed` when it is a
  ///   directory, pipe, socket or device.
  public convenience init(path: String, name: String? = nil) throws(Failure) {
    let name = name ?? path
    // Without O_NONBLOCK, opening a pipe would wait for a writer for ever.
    guard let descriptor = Descriptor(path, O_RDONLY | O_NONBLOCK | O_NOCTTY) else {
      throw .input("cannot open", file: name)
    }
    try self.init(descriptor, name: name)
  }

  init(_ descriptor: consuming Descriptor, name: String) throws(Failure) {
    guard let status = descriptor.status else { throw .input("cannot examine", file: name) }
    guard status.kind == S_IFREG else {
      throw Failure(.malformed, "is \(status.kindName), expected a regular file", file: name)
    }
    self.name = name
    identity = FileIdentity(status)
    self.descriptor = descriptor
  }

  /// Fills `destination` from `offset` on.
  ///
  /// - Throws: `io` when the medium fails or the file has become shorter.
  public func read(at offset: Int, into destination: inout MutableRawSpan) throws(Failure) {
    try unsafe destination.withUnsafeMutableBytes { (pointer) throws(Failure) in
      try unsafe read(at: offset, into: pointer)
    }
  }

  private func read(at offset: Int, into destination: UnsafeMutableRawBufferPointer) throws(Failure) {
    var done = 0
    while done < destination.count {
      let rest = unsafe UnsafeMutableRawBufferPointer(rebasing: destination[done...])
      let position = offset + done
      let count = SystemCall.value { unsafe pread(descriptor.number, rest.baseAddress, rest.count, off_t(position)) }
      guard let count else {
        throw Failure(.io, "cannot read: \(errorText())", file: name, offset: position)
      }
      if count == 0 {
        throw Failure(
          .io, "ends here although it had \(size) bytes when it was opened; it was changed meanwhile", file: name,
          offset: position)
      }
      done += count
    }
  }

  /// The bytes of `range`, which must lie inside the file as it was when it was opened.
  public func bytes(in range: Range<Int>) throws(Failure) -> [UInt8] {
    guard range.lowerBound >= 0, range.upperBound <= size else {
      throw Failure(.internal, "range \(range) is outside the file's \(size) bytes", file: name)
    }
    var failure: Failure?
    let bytes = unsafe [UInt8](unsafeUninitializedCapacity: range.count) { buffer, count in
      do throws(Failure) {
        try unsafe read(at: range.lowerBound, into: UnsafeMutableRawBufferPointer(buffer))
        count = range.count
      } catch { failure = error }
    }
    if let failure { throw failure }
    return bytes
  }

  /// The whole file, refused when it is larger than `limit` bytes.
  public func contents(limit: Int) throws(Failure) -> [UInt8] {
    guard size <= limit else {
      throw Failure(.malformed, "has \(size) bytes, allowed are \(limit)", file: name)
    }
    return try bytes(in: 0..<size)
  }

  /// - Throws: `io` when size, time stamps or inode are no longer those of the opening.
  public func checkUnchanged() throws(Failure) {
    guard let status = descriptor.status else { throw .input("cannot examine", file: name) }
    let now = FileIdentity(status)
    guard now == identity else {
      throw Failure(
        .io, "was changed while it was being read (\(identity.size) bytes then, \(now.size) now)", file: name)
    }
  }

  /// Tells the system that the range was read and will not be needed soon.
  public func willNotNeed(_ range: Range<Int>) {
    #if canImport(Glibc)
      _ = posix_fadvise(descriptor.number, off_t(range.lowerBound), off_t(range.count), POSIX_FADV_DONTNEED)
    #endif
  }

  /// The file as memory, for zero-copy access.
  public func map() throws(Failure) -> MappedFile {
    try MappedFile(descriptor.number, size: size, name: name)
  }
}
