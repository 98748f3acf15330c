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

  public func read(_ index: Int, at offset: Int, into destination: UnsafeMutableRawBufferPointer) throws(Failure) {
    guard offset + destination.count <= data[index].count else { throw Failure(.internal, "read past the end") }
    destination.copyBytes(from: data[index][offset..<offset + destination.count])
  }
}

extension TensorSource {
  public func bytes(_ index: Int, _ range: Range<Int>) throws -> [UInt8] {
    var bytes = [UInt8](repeating: 0xEE, count: range.count)
    try bytes.withUnsafeMutableBytes { try read(index, at: range.lowerBound, into: $0) }
    return bytes
  }

  public func bytes(_ index: Int) throws -> [UInt8] { try bytes(index, 0..<tensors[index].byteCount) }
}
