public import Bytes
public import Tensors

/// Tensors that are kept in memory.
public struct MemorySource: TensorSource {
  public let tensors: [TensorInfo]
  public let data: [[UInt8]]

  public init(_ tensors: [SafetensorsBuilder.Tensor]) throws {
    self.tensors = try tensors.map {
      try TensorInfo(name: TensorName($0.name), type: ElementType(name: $0.dtype) ?? .u8, shape: $0.shape)
    }
    data = tensors.map(\.data)
  }

  public func read(_ index: Int, at offset: Int, into destination: inout MutableRawSpan) throws(Failure) {
    guard offset + destination.byteCount <= data[index].count else { throw Failure(.internal, "read past the end") }
    let bytes = data[index][offset..<offset + destination.byteCount]
    destination.withUnsafeMutableBytes { $0.copyBytes(from: bytes) }
  }
}

extension TensorSource {
  /// Fills an array.
  public func read(_ index: Int, at offset: Int, into bytes: inout [UInt8]) throws(Failure) {
    var span = bytes.mutableSpan
    var room = span.mutableBytes
    try read(index, at: offset, into: &room)
  }

  public func bytes(_ index: Int, _ range: Range<Int>) throws -> [UInt8] {
    var bytes = [UInt8](repeating: 0xEE, count: range.count)
    try read(index, at: range.lowerBound, into: &bytes)
    return bytes
  }

  public func bytes(_ index: Int) throws -> [UInt8] { try bytes(index, 0..<tensors[index].byteCount) }
}
