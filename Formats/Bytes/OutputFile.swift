import CSystem

#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// A new file inside a `StagedDirectory`, written from front to back.
///
/// Nothing of it is visible under its final path before the directory commits.
public final class OutputFile {
  public let name: String
  /// Bytes appended so far.
  public private(set) var size = 0
  private let descriptor: Descriptor
  /// Bytes that the device was asked to write already.
  private var startedSize = 0
  private static let writingStep = 32 << 20

  init(at directory: Int32, _ name: String) throws(Failure) {
    guard InputDirectory.isPlainComponent(name) else {
      throw Failure(.internal, "'\(name)' is not a plain file name", file: name)
    }
    guard let descriptor = Descriptor(at: directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW) else {
      throw .output("cannot create", file: name)
    }
    self.name = name
    self.descriptor = descriptor
  }

  /// - Throws: `io` when the disk is full or the device fails.
  public func append(_ bytes: UnsafeRawBufferPointer) throws(Failure) {
    var done = 0
    while done < bytes.count {
      let rest = unsafe UnsafeRawBufferPointer(rebasing: bytes[done...])
      guard let count = SystemCall.value({ unsafe write(descriptor.number, rest.baseAddress, rest.count) }) else {
        throw Failure(.io, "cannot write: \(errorText())", file: name, offset: size)
      }
      done += count
      size += count
    }
    if size - startedSize >= Self.writingStep {
      nibble_start_writing(descriptor.number, Int64(startedSize), Int64(size - startedSize))
      startedSize = size
    }
  }

  public func append(_ bytes: [UInt8]) throws(Failure) {
    var failure: Failure?
    unsafe bytes.withUnsafeBytes { buffer in
      do throws(Failure) { try unsafe append(buffer) } catch { failure = error }
    }
    if let failure { throw failure }
  }

  /// Makes the contents durable. A failed fsync is final: the kernel may have dropped the pages.
  public func finish() throws(Failure) {
    guard nibble_full_sync(descriptor.number) == 0 else {
      throw Failure(.io, "cannot make it durable (fsync): \(errorText())", file: name)
    }
  }

}
