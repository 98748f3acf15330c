package import Adapters
package import Bytes
package import Checkpoints
import GGUF
import Quantization
import Writing

extension Merge {
  /// Into a file for llama.cpp: a base in GGUF keeps its metadata and the type of every tensor, one of transformers is
  /// converted on the way.
  func mergeToGGUF(
    _ base: String, adapters paths: [String], output: String, announce: (Warning) -> Void
  ) throws(Failure) -> RunReport {
    // Values that are to be rounded again are not rounded before.
    let model = try StoredModel(CheckpointFiles(path: base, config: run.config), blocksAs: .f32)
    do throws(Failure) {
      try check(model)
      let adapters = try open(paths, for: model)
      return try prepareGGUF(model, adapters, name: FileName.last(of: output)).run(into: output, announce: announce)
    } catch { throw model.located(error) }
  }

  private func prepareGGUF(
    _ model: StoredModel, _ adapters: [Adapter], name: String
  ) throws(Failure) -> WriteRun {
    let contents = try model.checkContents()
    let base = try MergeBase(model, trainedAs: trainedAs, isQuantizedAgain: false)
    let target = type
    let merged = try MergePlan(base: base.model, adapters: adapters, settings: settings, type: target)
    let provenance = try MergeProvenance(model, adapters, settings)
    let doubts = try doubts(adapters, model)
    guard let config = config(of: model, base, merged, target) else {
      throw Failure(
        .missing, "has no \(StoredModel.configName), which names the architecture (--config)",
        file: model.checkpoint.path)
    }
    let side = try SideFiles(of: model, adapters: adapters)
    let input = try MergedGGUF(merged, of: model, config: config, side: side).input()
    var warnings = input.warnings + contents.warnings() + merged.warnings + doubts
    let plan: WritePlan
    var summary: QuantizationSummary?
    if let ggufScheme {
      var quantize = QuantizeToGGUF(ggufScheme)
      // Whatever the base was in, its values have changed.
      quantize.forcesRequantization = true
      quantize.run = run
      let prepared = try quantize.prepare(input, GGUFMeasurements(), name: name)
      plan = prepared.plan
      summary = try QuantizationSummary(gguf: plan)
      warnings += prepared.warnings
    } else {
      plan = try input.plan(as: target, name: name, maxShardBytes: run.maxShardBytes)
    }
    return WriteRun(
      plan: plan, destination: GGUFDestination(), operation: "merge", activity: "merging",
      source: model.checkpoint.path, recorded: recorded(provenance), warnings: warnings, options: run,
      inputs: RunInputs(
        identities: input.identities + adapters.flatMap(\.identities), others: adapters.flatMap(\.files),
        checkUnchanged: input.checkUnchanged),
      summary: summary, changes: { MergeReport.changes(merged) })
  }

  /// Adapters of PEFT and mlx-lm, which are directories, and of llama.cpp, which are files.
  package func open(_ paths: [String], for model: StoredModel) throws(Failure) -> [Adapter] {
    var adapters: [Adapter] = []
    var base: AdapterBase?
    for path in paths {
      if try CheckpointFormat.detect(path) == .ggufFile {
        let known = if let base { base } else { try AdapterBase(model) }
        base = known
        adapters.append(try GGUFAdapter(path: path, base: known).adapter)
      } else {
        adapters.append(try Adapter.open(path))
      }
    }
    return adapters
  }
}
