import Bytes
package import Tensors

/// A part of a tensor in a file of safetensors, as the file itself says.
package struct DistributedPart: Sendable {
  /// The whole's name, the part's type and shape.
  let info: TensorInfo
  /// Where it begins in the whole, for each dimension.
  let offsets: [Int]
  /// Where it begins in the file.
  let start: Int

  /// - Parameters:
  ///   - offsets: as many as the shape has dimensions, none negative.
  ///   - start: of the part's first byte in the file.
  package init(_ info: TensorInfo, offsets: [Int], start: Int) {
    self.info = info
    self.offsets = offsets
    self.start = start
  }

  /// The bytes, as the view that they would be in a file of `torch.save`.
  var view: PyTorchTensor {
    var strides = [Int](repeating: 1, count: info.shape.count)
    for axis in strides.indices.dropLast().reversed() {
      strides[axis] = strides[axis + 1] * max(1, info.shape[axis + 1])
    }
    return PyTorchTensor(
      info: info, shape: info.shape, strides: strides, offset: 0, storageKey: "",
      storageRange: start..<start + info.byteCount, width: info.type.bitWidth / 8)
  }
}
