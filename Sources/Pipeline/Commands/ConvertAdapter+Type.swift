import Adapters
import Bytes
import JSON
import Quantization
import Safetensors
import Tensors

extension Convert {
  /// An adapter of PEFT in another dtype: the same directory, with one file of tensors, as PEFT wants them.
  func prepareAdapter(_ model: ModelSource) throws(Failure) -> CheckpointRun {
    let checkpoint = model.checkpoint
    let target = FloatType(torchName: type.rawValue)
    var conversions: [Int: FloatType] = [:]
    if let target {
      for (index, info) in checkpoint.tensors.enumerated() where info.type.isFloat && info.type != target.elementType {
        conversions[index] = target
      }
    }
    let source: any TensorSource = conversions.isEmpty ? checkpoint : try ConvertedSource(checkpoint, conversions)
    let steps = source.tensors.indices.map { index in
      Step(tensor: index, action: .copy, origin: conversions[index] == nil ? .stored(index) : .derived([index]))
    }
    var total = 0
    for tensor in source.tensors { total = total.addingSaturated(tensor.byteCount) }
    var plan = OutputPlan(
      source: source, stored: checkpoint, scheme: nil, steps: steps,
      shards: [.init(name: Adapter.weightsName, steps: 0..<steps.count, dataByteCount: total)])
    if let checkpoint = checkpoint as? StoredSafetensors { plan.metadata = checkpoint.checkpoint.metadata }
    var side = try SideFiles(of: model)
    // It is about the model, not about the adapter's factors.
    if model.config != nil, let directory = checkpoint.directory { side.add(ModelSource.configName, in: directory) }
    return CheckpointRun(
      model: model, plan: plan, config: nil, operation: "convert", activity: "converting",
      recorded: [("dtype", .string(type.rawValue))], warnings: model.warnings + side.warnings, options: run,
      sideFiles: side)
  }
}
