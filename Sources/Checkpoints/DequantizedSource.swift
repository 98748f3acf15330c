package import Bytes
import PackedWeights
package import Quantization
package import Tensors

/// A checkpoint whose packed weights read as the floating-point values they stand for.
package struct DequantizedSource: TensorSource {
  package let logical: LogicalTensors
  package let tensors: [TensorInfo]

  package init(_ logical: LogicalTensors) {
    self.logical = logical
    tensors = logical.items.map(logical.info)
  }

  /// - Parameter type: what the values are meant for in the end. A weight that was quantized from another
  ///   type reads as F32, so that it is rounded once.
  package init(_ logical: LogicalTensors, for type: FloatType) throws(Failure) {
    self.logical = logical
    var tensors: [TensorInfo] = []
    for item in logical.items {
      let info = logical.info(item)
      switch item {
      case .packed(let weight) where weight.info.type != type.elementType:
        tensors.append(try TensorInfo(name: info.name, type: .f32, shape: info.shape))
      default: tensors.append(info)
      }
    }
    self.tensors = tensors
  }

  package func isPacked(_ index: Int) -> Bool { logical.items[index].isPacked }

  package func origin(of index: Int) -> StoredOrigin {
    switch logical.items[index] {
    case .plain(let stored): .stored(stored)
    case .packed(let weight): .derived(weight.parts)
    }
  }

  package func storedByteCount(of index: Int) -> Int { logical.byteCount(logical.items[index]) }

  package func read(
    _ index: Int, at offset: Int, into destination: inout MutableRawSpan
  ) throws(Failure) {
    switch logical.items[index] {
    case .plain(let stored): try logical.checkpoint.read(stored, at: offset, into: &destination)
    case .packed(let weight):
      let type = FloatType(tensors[index].type) ?? .f32
      let width = type.byteCount
      // Runs cut at multiples of every element's size.
      guard offset % width == 0, destination.byteCount % width == 0 else {
        throw Failure(.internal, "a piece cuts an element in two", tensor: weight.info.name.string)
      }
      if destination.isEmpty { return }
      let elements = offset / width..<(offset + destination.byteCount) / width
      try weight.decode(elements, of: logical.checkpoint, as: type, into: &destination)
    }
  }
}
