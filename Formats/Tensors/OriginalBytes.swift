/// Room for the bytes, as stored, that a piece of a computed tensor was made of.
@safe public final class OriginalBytes: @unchecked Sendable {
  private let memory: UnsafeMutableRawBufferPointer
  private var count = 0

  /// - Parameter capacity: bytes; `set` takes no more.
  public init(capacity: Int) { unsafe memory = .allocate(byteCount: capacity, alignment: 64) }

  deinit { unsafe memory.deallocate() }

  /// The bytes that were set last; none after `clear`.
  public var bytes: RawSpan {
    @_lifetime(borrow self)
    get { unsafe _overrideLifetime(RawSpan(_unsafeBytes: memory[..<count]), borrowing: self) }
  }

  public func clear() { count = 0 }

  public func set(_ bytes: RawSpan) {
    unsafe precondition(bytes.byteCount <= memory.count, "more than there is room for")
    unsafe bytes.withUnsafeBytes { unsafe memory.copyMemory(from: $0) }
    count = bytes.byteCount
  }
}
