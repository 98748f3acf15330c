// What spans of the standard library leave to unsafe calls, each written once.

extension RawSpan {
  /// A number at any alignment, in the byte order of the machine.
  @inlinable
  package func load<T: FixedWidthInteger & BitwiseCopyable>(at offset: Int, as type: T.Type) -> T {
    // Any bits are a number, and the standard library checks the bounds.
    unsafe unsafeLoadUnaligned(fromByteOffset: offset, as: type)
  }

  /// - Precondition: as many whole values, aligned as such.
  package var floats: Span<Float> {
    @_lifetime(copy self)
    get {
      let own = unsafe withUnsafeBytes { unsafe $0 }
      return unsafe _overrideLifetime(Span(_unsafeBytes: own), copying: self)
    }
  }
}

extension Span where Element: BitwiseCopyable {
  package var array: [Element] {
    var elements: [Element] = []
    elements.reserveCapacity(count)
    for index in indices { elements.append(self[index]) }
    return elements
  }
}

extension Span where Element == Float {
  package var rawBytes: RawSpan {
    @_lifetime(copy self)
    get { unsafe bytes }
  }
}

extension Span where Element: FixedWidthInteger & BitwiseCopyable {
  package var rawBytes: RawSpan {
    @_lifetime(copy self)
    get { unsafe bytes }
  }
}

extension Array where Element == Float {
  package init(copying values: Span<Float>) {
    self = unsafe values.withUnsafeBufferPointer { unsafe Array($0) }
  }
}

extension MutableSpan where Element == Float {
  @_lifetime(&self)
  package mutating func part(_ range: Range<Int>) -> MutableSpan<Float> { _mutatingExtracting(range) }

  package var mutableRawBytes: MutableRawSpan {
    @_lifetime(&self)
    mutating get { unsafe mutableBytes }
  }
}

extension MutableSpan where Element == UInt8 {
  package var mutableRawBytes: MutableRawSpan {
    @_lifetime(&self)
    mutating get { unsafe mutableBytes }
  }
}

extension MutableRawSpan {
  @_lifetime(&self)
  package mutating func part(_ range: Range<Int>) -> MutableRawSpan { _mutatingExtracting(range) }

  /// Copies to the front; the two must not overlap.
  ///
  /// - Precondition: there is room for all of them.
  @_lifetime(self: copy self)
  package mutating func copy(from source: RawSpan) {
    precondition(source.byteCount <= byteCount, "more than there is room for")
    unsafe withUnsafeMutableBytes { own in unsafe source.withUnsafeBytes { unsafe own.copyMemory(from: $0) } }
  }

  package func isAligned(to alignment: Int) -> Bool {
    unsafe withUnsafeBytes { Int(bitPattern: $0.baseAddress) % alignment == 0 }
  }

  /// - Precondition: as many whole values, aligned as such.
  package var mutableFloats: MutableSpan<Float> {
    @_lifetime(&self)
    mutating get {
      let own = unsafe withUnsafeMutableBytes { unsafe $0 }
      return unsafe _overrideLifetime(MutableSpan(_unsafeBytes: own), mutating: &self)
    }
  }
}
