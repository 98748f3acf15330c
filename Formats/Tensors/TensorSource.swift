public import Bytes

/// Tensors that can be read piece by piece: what is there first, bytes on demand.
///
/// A transform that keeps one tensor one tensor is a source around a source, see `WrappingSource`.
public protocol TensorSource: Sendable {
  /// Complete before any data byte is read, in the order of storage.
  var tensors: [TensorInfo] { get }

  /// Copies bytes of one tensor. Safe to call from several threads at once.
  ///
  /// - Parameters:
  ///   - index: position in `tensors`.
  ///   - offset: first byte wanted, counted from the tensor's own start.
  ///   - destination: filled completely; `offset + destination.byteCount` must not pass the tensor's end.
  /// - Throws: `io` when reading fails or the file has changed.
  func read(
    _ index: Int, at offset: Int, into destination: inout MutableRawSpan
  ) throws(Failure)

  /// As `read(_:at:into:)`, for a tensor whose values are computed from the same elements of one stored tensor.
  ///
  /// - Parameter original: is given the bytes, as stored, that the piece was made of.
  /// - Throws: `internal` for a tensor that is not computed so.
  func read(
    _ index: Int, at offset: Int, into destination: inout MutableRawSpan, original: OriginalBytes
  ) throws(Failure)

  /// Bytes that lie in files of what a tensor is made of: fewer or more than its values have where they are computed.
  func storedByteCount(of index: Int) -> Int
}

extension TensorSource {
  public func read(
    _ index: Int, at offset: Int, into destination: inout MutableRawSpan, original: OriginalBytes
  ) throws(Failure) {
    throw Failure(.internal, "a tensor that cannot be traced", tensor: tensors[index].name.string)
  }

  public func storedByteCount(of index: Int) -> Int { tensors[index].byteCount }
}

/// A source around a source with the same tensors in the same order. It says what it changes; everything else is the
/// base's.
public protocol WrappingSource: TensorSource {
  var base: any TensorSource { get }

  /// Whether the values of a tensor are others than the base's.
  func changes(_ index: Int) -> Bool
}

extension WrappingSource {
  public var tensors: [TensorInfo] { base.tensors }

  public func read(_ index: Int, at offset: Int, into destination: inout MutableRawSpan) throws(Failure) {
    try base.read(index, at: offset, into: &destination)
  }

  public func read(
    _ index: Int, at offset: Int, into destination: inout MutableRawSpan, original: OriginalBytes
  ) throws(Failure) {
    guard !changes(index) else {
      throw Failure(.internal, "a changed tensor cannot be traced", tensor: tensors[index].name.string)
    }
    try base.read(index, at: offset, into: &destination, original: original)
  }

  public func storedByteCount(of index: Int) -> Int { base.storedByteCount(of: index) }
}
