import Adapters
import Bytes
import Checkpoints
import JSON
import PackedWeights
import Quantization
import Safetensors
import Tensors
import Writing

extension Convert {
  /// An adapter in another dtype, or one of mlx-lm: the same directory, with one file of tensors, as PEFT wants them.
  func prepareAdapter(_ model: StoredModel) throws(Failure) -> WriteRun {
    let checkpoint = model.checkpoint
    let target = type
    var conversions: [Int: FloatType] = [:]
    if let target {
      for (index, info) in checkpoint.tensors.enumerated() where info.type.isFloat && info.type != target.elementType {
        conversions[index] = target
      }
    }
    let source: any TensorSource = conversions.isEmpty ? checkpoint : try ConvertedSource(checkpoint, conversions)
    let plan = try WritePlan(
      file: Adapter.weightsName, of: source, stored: checkpoint,
      origins: source.tensors.indices.map { conversions[$0] == nil ? .stored($0) : .derived([$0]) },
      metadata: checkpoint.files.safetensors?.checkpoint.metadata)
    var side = try SideFiles(of: model)
    // It is about the model, not about the adapter's factors.
    if model.config != nil, let directory = checkpoint.directory { side.add(StoredModel.configName, in: directory) }
    let made = checkpoint.files.planned?.adapterConfig.map { [(Adapter.configName, $0.text(.indented) + "\n")] } ?? []
    return WriteRun(
      plan: plan, destination: DirectoryDestination(made: made, sideFiles: side), operation: "convert",
      activity: "converting",
      source: checkpoint.path, recorded: [("dtype", .string(type.choice))], warnings: model.warnings + side.warnings,
      options: run, inputs: RunInputs(model))
  }
}
