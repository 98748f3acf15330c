package import Bytes
import Checkpoints
import PackedWeights
package import Quantization
import Synchronization
package import Tensors

/// The largest magnitude of each weight, or of several that a server computes as one and with one scale. Each is found
/// when it is first asked for.
package final class LargestMagnitudes: Sendable {
  private final class Found: Sendable {
    let value = Mutex<Float?>(nil)
  }

  private let source: any TensorSource
  /// For each tensor the position of its group.
  private let groups: [Int: Int]
  private let members: [[Int]]
  private let found: [Found]

  /// - Parameter groups: tensors, by position in `source`, that share a scale; each stands in one group.
  package init(_ source: any TensorSource, groups: [[Int]]) {
    self.source = source
    members = groups
    found = groups.map { _ in Found() }
    self.groups = groups.enumerated().reduce(into: [:]) { positions, group in
      for tensor in group.element { positions[tensor] = group.offset }
    }
  }

  /// The scale of a whole weight of NVFP4.
  ///
  /// - Throws: what reading throws. Values that are not finite are passed over; who encodes them finds them.
  package func globalScale(of tensor: Int, _ type: FloatType) throws(Failure) -> Float {
    guard let group = groups[tensor] else { throw Failure(.internal, "no group of a weight") }
    let largest = try found[group].value.withLock { (stored) throws(Failure) -> Float in
      if let stored { return stored }
      var largest: Float = 0
      for member in members[group] { largest = max(largest, try magnitude(of: member)) }
      stored = largest
      return largest
    }
    return ScaledFormat.globalScale(largest: largest, as: type)
  }

  private func magnitude(of tensor: Int) throws(Failure) -> Float {
    let info = source.tensors[tensor]
    guard let type = FloatType(info.type) else { return 0 }
    let buffer = SharedBuffer(byteCount: Piece.byteCount)
    var largest: Float = 0
    var offset = 0
    while offset < info.byteCount {
      let count = min(Piece.byteCount, info.byteCount - offset)
      var part = buffer.part(0..<count)
      try source.read(tensor, at: offset, into: &part)
      let magnitude = ScaledFormat.largestMagnitude(part.bytes, as: type)
      if magnitude.isFinite { largest = max(largest, magnitude) }
      offset += count
    }
    return largest
  }
}
