import Bytes
import Calibration
import Checkpoints
import Quantization
import Tensors

/// What the pieces of one weight share when its errors are made good.
final class WeightFeedback: Sendable {
  private let weight: TensorInfo
  private let type: BlockType
  private let factors: any InputFactors
  private let found = Once<Result<BlockFeedback?, Failure>>()

  init(_ weight: TensorInfo, _ type: BlockType, _ factors: any InputFactors) {
    self.weight = weight
    self.type = type
    self.factors = factors
  }

  /// Made when it is first asked for.
  func feedback() throws(Failure) -> BlockFeedback? {
    try found.value {
      do throws(Failure) {
        guard let factor = try factors.factor(for: weight, blocks: BlockFeedback.blocks(of: type)) else {
          return .success(nil)
        }
        return .success(BlockFeedback(type, factor: factor))
      } catch { return .failure(error) }
    }.get()
  }
}

extension BlockFeedback {
  /// - Parameter values: whole rows.
  func encode(_ values: Span<Float>, into target: inout MutableRawSpan) throws(NonFinite) {
    let blocks = try callAsFunction(values.array)
    target.copy(from: blocks.span.rawBytes)
  }
}
