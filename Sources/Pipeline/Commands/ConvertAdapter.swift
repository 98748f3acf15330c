import Adapters
import Bytes
import GGUF
import JSON
import Quantization
import Safetensors
import Tensors

extension Convert {
  /// A LoRA adapter between PEFT's directory and llama.cpp's file.
  func convertAdapter(
    _ source: String, base path: String, output: String, announce: (Warning) -> Void
  ) throws(Failure) -> RunReport {
    let model = try ModelSource(path: path)
    do throws(Failure) {
      let base = try AdapterBase(model)
      let isDirectory = InputDirectory.exists(at: source)
      let isFile = try GGUFCheckpoint.isGGUF(path: source)
      guard isDirectory || isFile else {
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
        return try ggufRun(Adapter(path: source), base, model, name: fileName(of: output))
          .run(into: output, announce: announce)
      }
      let read = try GGUFAdapter(path: source, base: base)
      // Whatever does not fit the base is found here.
      _ = try MergePlan(base: base.merge.model, adapters: [read.adapter], settings: MergeSettings(), type: nil)
      return try writeAdapter(read, model, into: output, announce: announce)
    } catch { throw model.located(error) }
  }

  private func ggufRun(
    _ adapter: Adapter, _ base: AdapterBase, _ model: ModelSource, name: String
  ) throws(Failure) -> GGUFRun {
    let made = try AdapterToGGUF(adapter, base: base) { (name) throws(Failure) in
      guard let directory = adapter.directory, directory.contains(name) else { return nil }
      return try directory.open(name).contents(limit: GGUFInput.sideFileLimit)
    }
    let target = FloatType(torchName: type.rawValue)?.elementType
    var types: [GGMLType] = []
    for info in made.source.tensors {
      guard let type = GGMLType(target ?? info.type) else {
        throw Failure(.unsupported, "is \(info.type.name), which GGUF does not have", tensor: info.name.string)
      }
      types.append(type)
    }
    let plan = try GGUFPlan(
      source: made.source, types: types, origins: [], stored: nil, metadata: made.metadata, name: name,
      maxShardBytes: run.maxShardBytes)
    return GGUFRun(
      plan: plan, operation: "convert", activity: "converting", recorded: recorded(model), warnings: made.warnings,
      options: run, identities: adapter.identities + model.checkpoint.identities,
      checkUnchanged: { () throws(Failure) in for file in adapter.files { try file.checkUnchanged() } })
  }

  private func writeAdapter(
    _ source: GGUFAdapter, _ base: ModelSource, into path: String, announce: (Warning) -> Void
  ) throws(Failure) -> RunReport {
    var tensors: any TensorSource = source.source
    if let target = FloatType(torchName: type.rawValue) {
      tensors = try ConvertedSource(
        tensors, Dictionary(uniqueKeysWithValues: tensors.tensors.indices.map { ($0, target) }))
    }
    let plan = try OutputPlan(file: Adapter.weightsName, of: tensors)
    let names = [Adapter.configName, Adapter.weightsName, ManifestWriter.checksumsName, ManifestWriter.name]
    let warnings = source.adapter.warnings
    func report(seconds: Double) -> RunReport {
      RunReport(
        output: path, files: names, tensors: plan.steps.count,
        parameters: tensors.tensors.reduce(0) { $0.addingSaturated($1.elementCount) }, bytesIn: plan.inputByteCount,
        bytesOut: plan.dataByteCount, seconds: seconds, warnings: warnings, changes: nil)
    }
    if run.isDryRun {
      for warning in warnings { announce(warning) }
      return report(seconds: 0)
    }
    let directory = try StagedDirectory(path: path, replacing: run.force, inputs: source.adapter.identities)
    // Not earlier: a run that cannot begin has one thing to say.
    for warning in warnings { announce(warning) }
    let progress = Progress("converting", total: plan.inputByteCount, style: run.progress)
    defer { progress.finish() }
    let writer = ShardWriter(plan, files: directory.files, sha256: run.sha256)
    try OrderedRun(plan: plan, jobs: run.jobs, progress: progress).run(into: writer)
    try writer.finish()
    var config = HashedFile(try directory.files.create(Adapter.configName), sha256: run.sha256)
    try config.append(source.configuration.text(.indented) + "\n")
    try ManifestWriter(
      tensors: plan, operation: "convert", options: recorded(base), files: writer.fileDigests + [config.finish()],
      outputDigests: writer.outputDigests, sources: [], storedDigests: []
    ).write(into: directory.files, sha256: run.sha256)
    for file in source.adapter.files { try file.checkUnchanged() }
    try Interruption.check()
    let leftover = try directory.commit()
    var report = report(seconds: progress.seconds)
    if let leftover {
      announce(leftover)
      report.warnings.append(leftover)
    }
    return report
  }

  private func recorded(_ base: ModelSource) -> [(key: String, value: JSONValue)] {
    [("dtype", .string(type.rawValue)), ("base", .string(base.directoryName))]
  }
}
