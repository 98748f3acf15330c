package import Bytes

/// Memory for one call. What it hands out cannot outlive it, and nobody else looks at it while it is written.
@safe package struct ScratchBuffer: ~Copyable {
  private let memory: UnsafeMutableRawBufferPointer

  package init(byteCount: Int) { unsafe memory = .allocate(byteCount: byteCount, alignment: 64) }

  /// Part of a stored tensor.
  package init(_ source: any TensorSource, _ index: Int, at offset: Int, count: Int) throws(Failure) {
    self.init(byteCount: count)
    var room = mutableBytes
    try source.read(index, at: offset, into: &room)
  }

  deinit { unsafe memory.deallocate() }

  package var bytes: RawSpan {
    @_lifetime(borrow self)
    get { unsafe _overrideLifetime(RawSpan(_unsafeBytes: UnsafeRawBufferPointer(memory)), borrowing: self) }
  }

  package var mutableBytes: MutableRawSpan {
    @_lifetime(&self)
    mutating get { unsafe _overrideLifetime(MutableRawSpan(_unsafeBytes: memory), mutating: &self) }
  }

  /// - Precondition: it was made for whole values.
  package var floats: Span<Float> {
    @_lifetime(borrow self)
    get { bytes.floats }
  }

  /// - Precondition: it was made for whole values.
  package var mutableFloats: MutableSpan<Float> {
    @_lifetime(&self)
    mutating get { unsafe _overrideLifetime(MutableSpan(_unsafeBytes: memory), mutating: &self) }
  }
}

/// Memory of which several workers fill disjoint parts at once.
@safe package final class SharedBuffer: @unchecked Sendable {
  private let memory: UnsafeMutableRawBufferPointer

  package init(byteCount: Int) { unsafe memory = .allocate(byteCount: byteCount, alignment: 64) }

  deinit { unsafe memory.deallocate() }

  /// The bytes of the whole buffer, for use when the workers are done.
  package var bytes: RawSpan {
    @_lifetime(borrow self)
    get { unsafe _overrideLifetime(RawSpan(_unsafeBytes: UnsafeRawBufferPointer(memory)), borrowing: self) }
  }

  /// - Precondition: it was made for whole values.
  package var floats: Span<Float> {
    @_lifetime(borrow self)
    get { bytes.floats }
  }

  /// The part of one worker: that it overlaps no other's is for its users to see to.
  @_lifetime(borrow self)
  package func part(_ range: Range<Int>) -> MutableRawSpan {
    let part = unsafe UnsafeMutableRawBufferPointer(rebasing: memory[range])
    return unsafe _overrideLifetime(MutableRawSpan(_unsafeBytes: part), borrowing: self)
  }

  /// A part as `part` gives it, in 32-bit values and counted in them.
  @_lifetime(borrow self)
  package func floats(_ range: Range<Int>) -> MutableSpan<Float> {
    let part = unsafe UnsafeMutableRawBufferPointer(rebasing: memory[4 * range.lowerBound..<4 * range.upperBound])
    return unsafe _overrideLifetime(MutableSpan(_unsafeBytes: part), borrowing: self)
  }
}
