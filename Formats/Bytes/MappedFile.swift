#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// A file mapped into memory, read-only, for as long as the object lives.
///
/// Every access is bounds-checked against the size at mapping time. Should the file be truncated while
/// it is mapped, touching the lost part is a bus error: see `InputFile.read(at:into:)` for the alternative.
@safe public final class MappedFile: @unchecked Sendable {
  private let base: UnsafeRawBufferPointer

  init(_ descriptor: Int32, size: Int, name: String) throws(Failure) {
    guard size > 0 else {
      unsafe base = UnsafeRawBufferPointer(start: nil, count: 0)
      return
    }
    let address = unsafe mmap(nil, size, PROT_READ, MAP_SHARED, descriptor, 0)
    guard let address = unsafe address, unsafe address != MAP_FAILED else {
      throw Failure(.io, "cannot map \(size) bytes into memory: \(errorText())", file: name)
    }
    unsafe base = UnsafeRawBufferPointer(start: address, count: size)
  }

  deinit {
    if let address = unsafe base.baseAddress {
      _ = unsafe munmap(UnsafeMutableRawPointer(mutating: address), base.count)
    }
  }

  public var count: Int { unsafe base.count }

  /// All bytes. The span cannot outlive the object.
  public var bytes: RawSpan {
    @_lifetime(borrow self)
    get { unsafe _overrideLifetime(RawSpan(_unsafeBytes: base), borrowing: self) }
  }
}
