public import Bytes

/// Tensors that can be read piece by piece: what is there first, bytes on demand.
///
/// A transform that keeps one tensor one tensor is a source around a source.
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

  /// Bytes that lie in files of what a tensor is made of: fewer or more than its values have where they are computed.
  func storedByteCount(of index: Int) -> Int
}

extension TensorSource {
  public func storedByteCount(of index: Int) -> Int { tensors[index].byteCount }
}
