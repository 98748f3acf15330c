import CSystem

#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// A file whose first bytes are replaced where they are.
///
/// Neither a power failure nor another reader sees the old bytes or the new ones only: who needs that writes both down
/// elsewhere first.
public struct EditedFile: ~Copyable {
  /// The file's name as the user would recognise it.
  public let name: String
  /// The identity taken when the file was opened.
  public let identity: FileIdentity
  /// Names that the file has.
  public let linkCount: Int
  private let descriptor: Descriptor

  /// - Throws: `cannotCreate` for a link, and for a file that may not be written.
  public init(path: String, name: String) throws(Failure) {
    guard let descriptor = Descriptor(path, O_RDWR | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW) else {
      throw .output("cannot open it for writing", file: name)
    }
    guard let status = descriptor.status else { throw .input("cannot examine", file: name) }
    guard status.kind == S_IFREG else {
      throw Failure(.malformed, "is \(status.kindName), expected a regular file", file: name)
    }
    self.name = name
    identity = FileIdentity(status)
    linkCount = Int(status.st_nlink)
    self.descriptor = descriptor
  }

  /// Writes the file's first bytes anew and makes them durable.
  ///
  /// - Throws: `io` when the device fails; some of the bytes may have been written.
  public borrowing func replaceBeginning(_ bytes: [UInt8]) throws(Failure) {
    var done = 0
    while done < bytes.count {
      let count = unsafe bytes.withUnsafeBytes { buffer in
        let rest = unsafe UnsafeRawBufferPointer(rebasing: buffer[done...])
        return SystemCall.value { unsafe pwrite(descriptor.number, rest.baseAddress, rest.count, off_t(done)) }
      }
      guard let count else { throw Failure(.io, "cannot write: \(errorText())", file: name, offset: done) }
      done += count
    }
    guard nibble_full_sync(descriptor.number) == 0 else {
      throw Failure(.io, "cannot make it durable (fsync): \(errorText())", file: name)
    }
  }
}
