package import Bytes
import Quantization
package import Tensors

/// The checkpoint that a quantized one is compared with.
package struct OriginalModel: Sendable {
  package let model: StoredModel
  package let values: DequantizedSource
  /// Weights of `Conv1D`, which a plain checkpoint stores `[in, out]` and a quantized one `[out, in]`. Of a
  /// square one the shape does not tell.
  package let conv1D: Set<Int>

  /// - Parameter isRaw: a GGUF model is meant under its own names.
  package init(_ files: CheckpointFiles, isRaw: Bool = false) throws(Failure) {
    if isRaw, case .gguf(let values) = files {
      model = StoredModel(raw: values)
    } else {
      model = try StoredModel(comparing: files)
    }
    values = DequantizedSource(model.logical)
    conv1D = model.transposedWeights
  }

  /// A source whose tensor `index` has the orientation in which it was quantized.
  ///
  /// - Throws: `malformed` when it has another shape than the quantized weight in either orientation.
  package func oriented(_ index: Int, as shape: [Int]) throws(Failure) -> any TensorSource {
    let info = values.tensors[index]
    guard let isTurned = isTurned(index, against: shape, isConv1D: conv1D.contains(index)) else {
      throw Failure(
        .malformed, "has shape \(shape) here, \(info.shape) in the checkpoint to compare with", tensor: info.name.string
      )
    }
    return isTurned ? try TransposedSource(values, [index]) : values
  }

  /// Whether tensor `index` lies the other way round than a quantized weight of that shape; nil when its
  /// shape is another one in either orientation.
  package func isTurned(_ index: Int, against shape: [Int], isConv1D: Bool) -> Bool? {
    let info = values.tensors[index]
    let isReversed = info.shape.count == 2 && info.shape.reversed() == shape
    if info.shape == shape { return isReversed && isConv1D && !values.isPacked(index) }
    return isReversed ? true : nil
  }
}
