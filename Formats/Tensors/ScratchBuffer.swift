package import Bytes

/// Memory for one call. Its pointers are good as long as the object is: who passes one on keeps the object
/// with `extendLifetime`.
@safe package final class ScratchBuffer {
  private let memory: UnsafeMutableRawBufferPointer

  package init(byteCount: Int) { unsafe memory = .allocate(byteCount: byteCount, alignment: 64) }

  /// Part of a stored tensor.
  package convenience init(_ source: any TensorSource, _ index: Int, at offset: Int, count: Int) throws(Failure) {
    self.init(byteCount: count)
    try unsafe source.read(index, at: offset, into: memory)
  }

  deinit { unsafe memory.deallocate() }

  package var bytes: UnsafeRawBufferPointer { unsafe UnsafeRawBufferPointer(memory) }
  package var mutableBytes: UnsafeMutableRawBufferPointer { unsafe memory }
  package var floats: UnsafeBufferPointer<Float> {
    unsafe UnsafeBufferPointer(memory.assumingMemoryBound(to: Float.self))
  }
  package var mutableFloats: UnsafeMutableBufferPointer<Float> { unsafe memory.assumingMemoryBound(to: Float.self) }
}
