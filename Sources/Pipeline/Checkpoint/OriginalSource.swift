import Bytes
import Tensors

/// The checkpoint that a quantized one is compared with.
struct OriginalSource: Sendable {
  let values: DequantizedSource
  /// Weights of `Conv1D`, stored `[in, out]`. Of a square one the shape does not tell.
  private let transposed: Set<Int>

  init(path: String) throws(Failure) {
    let model = try ModelSource(path: path)
    let values = DequantizedSource(model.logical)
    self.values = values
    transposed = model.transposedWeights.filter { !values.isFourBit($0) }
  }

  /// A source whose tensor `index` has the orientation in which it was quantized.
  ///
  /// - Throws: `malformed` when it has another shape than the quantized weight in either orientation.
  func oriented(_ index: Int, as shape: [Int]) throws(Failure) -> any TensorSource {
    let info = values.tensors[index]
    let isReversed = info.shape.count == 2 && info.shape.reversed() == shape
    if info.shape == shape, !(isReversed && transposed.contains(index)) { return values }
    guard isReversed else {
      throw Failure(
        .malformed, "has shape \(shape) here, \(info.shape) in the checkpoint to compare with", tensor: info.name.string
      )
    }
    return try TransposedSource(values, [index])
  }
}
