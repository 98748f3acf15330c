import CSystem

#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// A new file inside a `StagedDirectory` or of `StagedFiles`, written from front to back or within a size given first.
///
/// Nothing of it is visible under its final path before the directory commits.
public final class OutputFile {
  public let name: String
  /// Bytes appended so far.
  public private(set) var size = 0
  private let descriptor: Descriptor
  /// False once the kernel has said that it cannot copy between these two file systems.
  private var copiesInKernel = true
  /// Bytes that the device was asked to write already.
  private var startedSize = 0
  private static let writingStep = 32 << 20

  /// - Parameter shown: what the file is called where it lies in a folder of the directory.
  init(at directory: Int32, _ name: String, as shown: String? = nil) throws(Failure) {
    guard InputDirectory.isPlainComponent(name) else {
      throw Failure(.internal, "'\(name)' is not a plain file name", file: name)
    }
    guard let descriptor = Descriptor(at: directory, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW) else {
      throw .output("cannot create", file: shown ?? name)
    }
    self.name = shown ?? name
    self.descriptor = descriptor
  }

  /// - Throws: `io` when the disk is full or the device fails.
  public func append(_ bytes: RawSpan) throws(Failure) {
    try unsafe bytes.withUnsafeBytes { (bytes) throws(Failure) in try unsafe append(bytes) }
  }

  private func append(_ bytes: UnsafeRawBufferPointer) throws(Failure) {
    var done = 0
    while done < bytes.count {
      let rest = unsafe UnsafeRawBufferPointer(rebasing: bytes[done...])
      guard let count = SystemCall.value({ unsafe write(descriptor.number, rest.baseAddress, rest.count) }) else {
        throw Failure(.io, "cannot write: \(errorText())", file: name, offset: size)
      }
      done += count
      size += count
    }
    startWriting()
  }

  private func startWriting() {
    guard size - startedSize >= Self.writingStep else { return }
    nibble_start_writing(descriptor.number, Int64(startedSize), Int64(size - startedSize))
    startedSize = size
  }

  /// Appends what stands in another file, copied by the kernel where the file system can: it may share the
  /// blocks, or have a server copy them.
  ///
  /// - Parameters:
  ///   - bytes: the same, as they were read; written where the kernel cannot copy.
  ///   - offset: where they stand in `source`.
  /// - Throws: `io` when the disk is full or the device fails.
  public func append(_ bytes: RawSpan, copiedFrom source: InputFile, at offset: Int) throws(Failure) {
    var done = 0
    var position = Int64(offset)
    while copiesInKernel, done < bytes.byteCount {
      let rest = UInt(bytes.byteCount - done)
      let count = SystemCall.value {
        unsafe Int(nibble_copy_range(source.descriptorNumber, &position, descriptor.number, rest))
      }
      guard let count, count > 0 else {
        if let count, count == 0 {
          copiesInKernel = false
        } else if [EXDEV, EINVAL, ENOSYS, EOPNOTSUPP, EPERM, EBADF].contains(errno) {
          copiesInKernel = false
        } else {
          throw Failure(.io, "cannot write: \(errorText())", file: name, offset: size)
        }
        break
      }
      done += count
      size += count
    }
    startWriting()
    if done < bytes.byteCount { try append(bytes.extracting(droppingFirst: done)) }
  }

  public func append(_ bytes: [UInt8]) throws(Failure) {
    try append(bytes.span.rawBytes)
  }

  /// Appends zeros up to a size, which take no room before they are written over.
  ///
  /// - Throws: `io` when the file cannot become so large.
  public func extend(to newSize: Int) throws(Failure) {
    let isDone = newSize >= size && SystemCall.succeeds { ftruncate(descriptor.number, off_t(newSize)) }
    guard isDone, lseek(descriptor.number, off_t(newSize), SEEK_SET) == off_t(newSize) else {
      throw .output("cannot make a file of \(newSize) bytes", file: name)
    }
    size = newSize
  }

  /// Writes over bytes that were appended.
  ///
  /// - Throws: `io` when the disk is full or the device fails.
  public func overwrite(at offset: Int, _ bytes: RawSpan) throws(Failure) {
    guard offset >= 0, bytes.byteCount <= size, offset <= size - bytes.byteCount else {
      throw Failure(.internal, "\(bytes.byteCount) bytes are beyond those appended", file: name, offset: offset)
    }
    var done = 0
    while done < bytes.byteCount {
      let rest = bytes.extracting(droppingFirst: done)
      let position = off_t(offset + done)
      let count = unsafe rest.withUnsafeBytes { (rest) in
        SystemCall.value { unsafe pwrite(descriptor.number, rest.baseAddress, rest.count, position) }
      }
      guard let count else { throw Failure(.io, "cannot write: \(errorText())", file: name, offset: offset + done) }
      done += count
    }
  }

  /// Reads back what was written, front to back.
  ///
  /// - Throws: `io` when the device fails.
  public func forEachPiece(_ body: (RawSpan) throws(Failure) -> Void) throws(Failure) {
    var buffer = [UInt8](repeating: 0, count: min(size, 1 << 20))
    var position = 0
    while position < size {
      let wanted = min(buffer.count, size - position)
      let count = unsafe buffer.withUnsafeMutableBytes { (room) in
        SystemCall.value { unsafe pread(descriptor.number, room.baseAddress, wanted, off_t(position)) }
      }
      guard let count, count > 0 else {
        throw Failure(.io, "cannot read back: \(errorText())", file: name, offset: position)
      }
      try body(buffer.span.rawBytes.extracting(first: count))
      position += count
    }
  }

  /// Gives the file the permissions of another, which it is to replace. Where that is not allowed it keeps its own.
  public func takePermissions(of file: InputFile) {
    guard let mode = file.permissions else { return }
    _ = SystemCall.succeeds { fchmod(descriptor.number, mode) }
  }

  /// Makes the contents durable. A failed fsync is final: the kernel may have dropped the pages.
  public func finish() throws(Failure) {
    guard nibble_full_sync(descriptor.number) == 0 else {
      throw Failure(.io, "cannot make it durable (fsync): \(errorText())", file: name)
    }
  }

}
