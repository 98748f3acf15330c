public import Bytes
public import Tensors

/// A tensor as PyTorch has it: a view of a storage, by an offset and a step for each dimension.
public struct PyTorchTensor: Sendable {
  public let info: TensorInfo
  /// As PyTorch counts, for which two 4-bit floats in a byte are one element.
  public let shape: [Int]
  /// From one element to the next of each dimension, in elements; 0 where one stands for all.
  public let strides: [Int]
  /// Position in the storage of the first element.
  public let offset: Int
  /// Decimal digits.
  public let storageKey: String
  /// Where the storage is in the file.
  public let storageRange: Range<Int>
  /// Bytes of one element.
  let width: Int

  /// What makes two tensors of a file the very same.
  struct View: Hashable {
    let storage: Range<Int>
    let key: String
    let offset: Int
    let type: ElementType
    let shape: [Int]
    let strides: [Int]
  }

  var view: View {
    View(storage: storageRange, key: storageKey, offset: offset, type: info.type, shape: shape, strides: strides)
  }

  /// Whether its bytes are one piece of the file, in order.
  public var isContiguous: Bool {
    var expected = 1
    for (count, stride) in zip(shape, strides).reversed() where count != 1 {
      if count == 0 || info.elementCount == 0 { return true }
      guard stride == expected else { return false }
      expected *= count
    }
    return true
  }

  /// Where its bytes are in the file; nil when they are not one piece of it.
  public var range: Range<Int>? {
    guard isContiguous else { return nil }
    return info.byteCount == 0 ? start..<start : start..<start + info.byteCount
  }

  /// Where its first element is in the file; where its storage is when it has none.
  var start: Int { info.byteCount == 0 ? storageRange.lowerBound : storageRange.lowerBound + offset * width }

  /// Bytes of the storage that its elements lie in, each once.
  public var storedByteCount: Int {
    guard info.elementCount > 0 else { return 0 }
    // No product of these is larger than the whole, which is no larger than 63 bits.
    let distinct = zip(shape, strides).reduce(1) { $1.1 == 0 ? $0 : $0 * $1.0 }
    return min(distinct * width, storageRange.count)
  }

  /// Copies bytes of the tensor, as if it were contiguous.
  ///
  /// - Parameters:
  ///   - file: the file that the tensor is in.
  ///   - offset: first byte wanted, counted from the tensor's own start.
  ///   - destination: filled completely; `offset + destination.byteCount` must not pass the tensor's end.
  /// - Throws: `io` when reading fails or the file has changed.
  public func read(
    from file: InputFile, at offset: Int, into destination: inout MutableRawSpan
  ) throws(Failure) {
    guard offset >= 0, destination.byteCount <= info.byteCount - offset else {
      throw Failure(
        .internal, "\(destination.byteCount) bytes at \(offset) are outside the tensor's \(info.byteCount)",
        file: file.name, tensor: info.name.string)
    }
    guard destination.byteCount > 0 else { return }
    do throws(Failure) {
      if let range {
        try file.read(at: range.lowerBound + offset, into: &destination)
      } else {
        try StridedReader(self, file).read(at: offset, into: &destination)
      }
    } catch { throw error.located(tensor: info.name.string) }
  }
}
