import Adapters
import Bytes
import Checkpoints
import JSON
import ModelFamilies
import Tensors

/// The model that an adapter was trained on: what its tensors are called by PEFT and in GGUF, and in which
/// arrangement they lie there.
struct AdapterBase {
  /// The path as the user named it.
  let path: String
  let merge: MergeBase
  let config: JSONValue
  let family: Family
  /// Each tensor of the model in GGUF, and the positions of the base's tensors that it is made of.
  let weights: [(weight: PlannedWeight, base: [Int])]

  /// - Parameter model: only names and shapes are read.
  init(_ model: StoredModel) throws(Failure) {
    guard var config = model.config else {
      throw Failure(
        .missing, "has no \(StoredModel.configName), which names the architecture", file: model.checkpoint.path)
    }
    config["quantization_config"] = nil
    path = model.checkpoint.path
    merge = try MergeBase(model, trainedAs: nil, isQuantizedAgain: false)
    self.config = config
    let order = model.converterOrder
    let source = merge.model.source
    let plan = try planGGUF(
      config: config, tensors: order.map { source.tensors[$0] }, directoryName: model.directoryName
    ) { _ throws(Failure) in nil }
    family = plan.family
    weights = plan.weights.map { weight in (weight, weight.source.positions.map { order[$0] }) }
  }

  /// The module that a tensor of the base is the weight of, as PEFT spells it; nil for biases and the like. An expert
  /// that is stored by itself, though the model class has all in one parameter, is called as it is stored.
  func module(of tensor: Int) -> String? {
    let entry = merge.model.entries[tensor]
    let parameter = entry.part == nil ? entry.parameter : merge.model.source.tensors[tensor].name.string
    return parameter.hasSuffix(".weight") ? String(parameter.dropLast(".weight".count)) : nil
  }
}
