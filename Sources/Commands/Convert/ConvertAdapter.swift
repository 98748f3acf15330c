import Adapters
import Bytes
import Checkpoints
import GGUF
import JSON
import PackedWeights
import Quantization
import Tensors
import Writing

extension Convert {
  /// A LoRA adapter between PEFT's directory and llama.cpp's file.
  func convertAdapter(
    _ source: String, base path: String, output: String, announce: (Warning) -> Void
  ) throws(Failure) -> RunReport {
    let model = try StoredModel(path: path)
    do throws(Failure) {
      let base = try AdapterBase(model)
      let format = try CheckpointFormat.detect(source)
      let isDirectory = format.isDirectory
      guard isDirectory || format == .ggufFile else {
        throw Failure(.malformed, "is neither the directory of a PEFT adapter nor a GGUF file", file: source)
      }
      guard output.hasSuffix(".gguf") == isDirectory else {
        throw Failure(
          .usage,
          isDirectory
            ? "an adapter of PEFT becomes a GGUF file: the name of the output must end in .gguf"
            : "an adapter in GGUF becomes a directory for PEFT: the name of the output must not end in .gguf")
      }
      if isDirectory {
        return try ggufRun(Adapter.open(source), base, model, name: FileName.last(of: output))
          .run(into: output, announce: announce)
      }
      let read = try GGUFAdapter(path: source, base: base)
      // Whatever does not fit the base is found here.
      _ = try MergePlan(base: base.merge.model, adapters: [read.adapter], settings: MergeSettings(), type: nil)
      return try adapterRun(read, model).run(into: output, announce: announce)
    } catch { throw model.located(error) }
  }

  private func ggufRun(
    _ adapter: Adapter, _ base: AdapterBase, _ model: StoredModel, name: String
  ) throws(Failure) -> WriteRun {
    let made = try AdapterToGGUF(adapter, base: base) { (name) throws(Failure) in
      guard let directory = adapter.directory, directory.contains(name) else { return nil }
      return try directory.open(name).contents(limit: GGUFContents.sideFileLimit)
    }
    let target = type?.elementType
    var types: [GGMLType] = []
    for info in made.source.tensors {
      guard let type = GGMLType(target ?? info.type) else {
        throw Failure(.unsupported, "is \(info.type.name), which GGUF does not have", tensor: info.name.string)
      }
      types.append(type)
    }
    let plan = try WritePlan(
      gguf: name, source: made.source, types: types, origins: [], stored: nil, metadata: made.metadata,
      maxShardBytes: run.maxShardBytes)
    return WriteRun(
      plan: plan, destination: GGUFDestination(), operation: "convert", activity: "converting",
      recorded: recorded(model), warnings: made.warnings, options: run,
      inputs: RunInputs(identities: adapter.identities + model.checkpoint.identities) { () throws(Failure) in
        for file in adapter.files { try file.checkUnchanged() }
      })
  }

  private func adapterRun(_ source: GGUFAdapter, _ base: StoredModel) throws(Failure) -> WriteRun {
    var tensors: any TensorSource = source.source
    if let target = type {
      tensors = try ConvertedSource(
        tensors, Dictionary(uniqueKeysWithValues: tensors.tensors.indices.map { ($0, target) }))
    }
    let config = source.configuration.text(.indented) + "\n"
    return WriteRun(
      plan: try WritePlan(file: Adapter.weightsName, of: tensors),
      destination: DirectoryDestination(made: [(Adapter.configName, config)]), operation: "convert",
      activity: "converting", recorded: recorded(base), warnings: source.adapter.warnings, options: run,
      inputs: RunInputs(identities: source.adapter.identities) { () throws(Failure) in
        for file in source.adapter.files { try file.checkUnchanged() }
      })
  }

  private func recorded(_ base: StoredModel) -> [(key: String, value: JSONValue)] {
    [("dtype", .string(type.choice)), ("base", .string(base.directoryName))]
  }
}
