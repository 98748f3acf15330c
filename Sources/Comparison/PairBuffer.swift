import Quantization
import Tensors

/// Memory for one piece of A and the same piece of B, and what was found about them.
final class PairBuffer: @unchecked Sendable {
  let a: SharedBuffer
  let b: SharedBuffer
  var difference = ValueDifference()

  /// - Parameter capacity: bytes of either side.
  init(capacity: Int) {
    a = SharedBuffer(byteCount: capacity)
    b = SharedBuffer(byteCount: capacity)
  }
}
