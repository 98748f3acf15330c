package import Bytes

/// A source that computes its values and can tell what they were computed from.
package protocol TracingSource: TensorSource {
  /// As `read(_:at:into:)`.
  ///
  /// - Parameter original: is given the bytes, as stored, that the piece was made of, when they are those of the
  ///   same elements of one tensor.
  func read(
    _ index: Int, at offset: Int, into destination: inout MutableRawSpan, original: ScratchBytes?
  ) throws(Failure)
}

/// Room for the bytes that a piece was made of.
@safe package final class ScratchBytes: @unchecked Sendable {
  private let memory: UnsafeMutableRawBufferPointer
  private var count = 0

  package init(capacity: Int) { unsafe memory = .allocate(byteCount: capacity, alignment: 64) }

  deinit { unsafe memory.deallocate() }

  package var bytes: RawSpan {
    @_lifetime(borrow self)
    get { unsafe _overrideLifetime(RawSpan(_unsafeBytes: memory[..<count]), borrowing: self) }
  }

  package func clear() { count = 0 }

  package func set(_ bytes: RawSpan) {
    unsafe precondition(bytes.byteCount <= memory.count, "more than there is room for")
    unsafe bytes.withUnsafeBytes { unsafe memory.copyMemory(from: $0) }
    count = bytes.byteCount
  }
}
