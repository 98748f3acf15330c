import CSystem

#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// A file that appears under its name complete, or not at all.
///
/// Written under a random hidden name in the same directory; removed unless committed.
public struct AtomicFile: ~Copyable {
  public let path: String
  private let name: String
  private let hiddenName: String
  private let directory: Descriptor
  private let descriptor: Descriptor
  private var isCommitted = false

  /// - Parameter size: the file's final size.
  /// - Throws: `cannotCreate` when the directory is missing or not writable; `io` when the disk is full.
  public init(path: String, size: Int) throws(Failure) {
    var parts = path.split(separator: "/", omittingEmptySubsequences: true)
    guard let last = parts.popLast(), InputDirectory.isPlainComponent(String(last)) else {
      throw Failure(.cannotCreate, "is not a usable file name", file: path)
    }
    let parentPath = (path.hasPrefix("/") ? "/" : "") + parts.joined(separator: "/")
    guard let directory = Descriptor(parentPath.isEmpty ? "." : parentPath, O_RDONLY | O_DIRECTORY) else {
      throw Failure(.cannotCreate, "cannot open the directory '\(parentPath)': \(errorText())", file: path)
    }
    let hiddenName = ".\(last).nibble-\(String(UInt64.random(in: 0 ... .max), radix: 16))"
    guard let descriptor = Descriptor(at: directory.number, hiddenName, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW) else {
      throw .output("cannot create", file: path)
    }
    guard SystemCall.succeeds({ ftruncate(descriptor.number, off_t(size)) }) else {
      let failure = Failure.output("cannot make a file of \(size) bytes", file: path)
      _ = unsafe unlinkat(directory.number, hiddenName, 0)
      throw failure
    }
    self.path = path
    name = String(last)
    self.hiddenName = hiddenName
    self.directory = directory
    self.descriptor = descriptor
  }

  deinit {
    if !isCommitted { _ = unsafe unlinkat(directory.number, hiddenName, 0) }
  }

  /// Writes at any position; pieces may come in any order.
  public func write(at offset: Int, _ bytes: RawSpan) throws(Failure) {
    try unsafe bytes.withUnsafeBytes { (bytes) throws(Failure) in try unsafe write(at: offset, bytes) }
  }

  private func write(at offset: Int, _ bytes: UnsafeRawBufferPointer) throws(Failure) {
    var done = 0
    while done < bytes.count {
      let rest = unsafe UnsafeRawBufferPointer(rebasing: bytes[done...])
      let position = off_t(offset + done)
      guard let count = SystemCall.value({ unsafe pwrite(descriptor.number, rest.baseAddress, rest.count, position) })
      else { throw Failure(.io, "cannot write: \(errorText())", file: path, offset: offset + done) }
      done += count
    }
  }

  /// Makes the contents durable and gives the file its name.
  ///
  /// - Parameter replacing: whether a file of that name may be replaced.
  /// - Throws: `cannotCreate` when the name is taken; `io` when the device fails.
  public consuming func commit(replacing: Bool = false) throws(Failure) {
    guard nibble_full_sync(descriptor.number) == 0 else {
      throw Failure(.io, "cannot make it durable (fsync): \(errorText())", file: path)
    }
    if replacing {
      guard SystemCall.succeeds({ unsafe renameat(directory.number, hiddenName, directory.number, name) }) else {
        throw .output("cannot move the finished file into place", file: path)
      }
      isCommitted = true
    } else {
      // link, unlike rename, refuses a name that is taken; deinit removes the hidden one.
      guard SystemCall.succeeds({ unsafe linkat(directory.number, hiddenName, directory.number, name, 0) }) else {
        throw .output("cannot move the finished file into place", file: path)
      }
    }
    guard nibble_full_sync(directory.number) == 0 else {
      throw Failure(.io, "cannot make the new name durable (fsync): \(errorText())", file: path)
    }
  }
}
