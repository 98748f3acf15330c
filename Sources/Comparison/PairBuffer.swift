import Quantization

/// Memory for one piece of A and the same piece of B, and what was found about them.
@safe final class PairBuffer: @unchecked Sendable {
  private let memoryA: UnsafeMutableRawBufferPointer
  private let memoryB: UnsafeMutableRawBufferPointer
  var difference = ValueDifference()

  /// - Parameter capacity: bytes of either side.
  init(capacity: Int) {
    unsafe memoryA = .allocate(byteCount: capacity, alignment: 64)
    unsafe memoryB = .allocate(byteCount: capacity, alignment: 64)
  }

  deinit {
    unsafe memoryA.deallocate()
    unsafe memoryB.deallocate()
  }

  func a(_ count: Int) -> UnsafeMutableRawBufferPointer {
    unsafe UnsafeMutableRawBufferPointer(rebasing: memoryA[..<count])
  }

  func b(_ count: Int) -> UnsafeMutableRawBufferPointer {
    unsafe UnsafeMutableRawBufferPointer(rebasing: memoryB[..<count])
  }
}
