import Architectures
import Bytes
import Checkpoints
import PackedWeights
import Tensors
import Writing

/// A linear layer that a run quantizes.
struct QuantizedModule: Sendable {
  let step: Step
  /// As it is quantized: `[outputs, inputs]`.
  let weight: TensorInfo
  /// The module's path as PEFT names it.
  let path: String
  let isConv1D: Bool

  var outputs: Int { weight.shape[0] }
  var inputs: Int { weight.shape[1] }
  var largestRank: Int { min(outputs, inputs) }

  /// In the order of the output. Experts are parts of one parameter, and none.
  static func all(of prepared: Quantize.Prepared) -> [QuantizedModule] {
    let plan = prepared.run.plan
    return prepared.quantized.compactMap { step in
      let info = plan.info(of: step)
      guard let path = prepared.weights.modules[step.tensor], info.shape.count == 2, !info.shape.contains(0) else {
        return nil
      }
      return QuantizedModule(
        step: step, weight: info, path: path,
        isConv1D: prepared.weights.dispositions[step.tensor] == .quantizeTransposed)
    }
  }
}

/// The weights of a model as they come out of its 4 bits.
struct QuantizedWeights: Sendable {
  let path: String
  private let stored: StoredSafetensors
  private let values: DequantizedSource
  private let positions: [TensorName: Int]

  init(_ path: String) throws(Failure) {
    self.path = path
    stored = try StoredSafetensors(path: path)
    let values = DequantizedSource(try LogicalTensors(stored))
    var positions: [TensorName: Int] = [:]
    for (index, info) in values.tensors.enumerated() where values.isPacked(index) { positions[info.name] = index }
    self.values = values
    self.positions = positions
  }

  /// - Throws: `internal` for a weight that is not there in 4 bits.
  func matrix(_ weight: TensorInfo) throws(Failure) -> (info: TensorInfo, source: DequantizedSource, index: Int) {
    guard let index = positions[weight.name], values.tensors[index].shape == weight.shape else {
      throw Failure(.internal, "is not in 4 bits", file: path, tensor: weight.name.string)
    }
    return (values.tensors[index], values, index)
  }

  func checkUnchanged() throws(Failure) { try stored.checkUnchanged() }
}
