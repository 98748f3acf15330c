public import Bytes
import Quantization
import Tensors

extension Adapter {
  /// The digest of the weights' files, to know the adapter again.
  public func digest() throws(Failure) -> XXH128Digest {
    var hasher = XXH3Hasher()
    for file in files {
      var position = 0
      while position < file.size {
        try Interruption.check()
        let end = min(position + (1 << 20), file.size)
        let bytes = try file.bytes(in: position..<end)
        hasher.update(bytes.span.rawBytes)
        position = end
      }
    }
    return hasher.digest128
  }

  /// Whether a tensor is the same as one of another adapter, byte for byte.
  func hasSameValues(_ one: Int, as other: Int, of adapter: Adapter) throws(Failure) -> Bool {
    guard tensors[one].shape == adapter.tensors[other].shape, tensors[one].type == adapter.tensors[other].type else {
      return false
    }
    var position = 0
    while position < tensors[one].byteCount {
      try Interruption.check()
      let count = min(1 << 20, tensors[one].byteCount - position)
      let left = try ScratchBuffer(source, one, at: position, count: count)
      let right = try ScratchBuffer(adapter.source, other, at: position, count: count)
      guard left.bytes.hasSameBytes(as: right.bytes) else { return false }
      position += count
    }
    return true
  }

  /// Whether a tensor has the values of one of another source, in whatever types the two are.
  func hasSameNumbers(_ one: Int, as other: Int, of source: any TensorSource) throws(Failure) -> Bool {
    let (own, its) = (tensors[one], source.tensors[other])
    guard own.shape == its.shape, let from = FloatType(elementType: own.type), let to = FloatType(elementType: its.type)
    else { return false }
    var position = 0
    while position < own.elementCount {
      try Interruption.check()
      let count = min(1 << 18, own.elementCount - position)
      let left = try ScratchBuffer(self.source, one, at: position * from.byteCount, count: count * from.byteCount)
      let right = try ScratchBuffer(source, other, at: position * to.byteCount, count: count * to.byteCount)
      var leftFloats = ScratchBuffer(byteCount: 4 * count)
      var rightFloats = ScratchBuffer(byteCount: 4 * count)
      var leftRoom = leftFloats.mutableBytes
      var rightRoom = rightFloats.mutableBytes
      // Nothing is too large for 32 bits.
      try? convert(left.bytes, from: from, to: .f32, into: &leftRoom)
      try? convert(right.bytes, from: to, to: .f32, into: &rightRoom)
      guard leftFloats.bytes.hasSameBytes(as: rightFloats.bytes) else { return false }
      position += count
    }
    return true
  }
}
