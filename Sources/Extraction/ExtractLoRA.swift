import Adapters
import Architectures
public import Bytes
import Checkpoints
import Comparison
import JSON
import Patterns
public import Quantization
import Tensors
public import Writing

/// `nibble extract-lora`: a PEFT adapter that makes one model nearly of another, from the truncated singular value
/// decomposition of the difference of each linear weight.
public struct ExtractLoRA: Sendable {
  /// The rank of every module's factors.
  public var rank: Int
  /// The dtype of the adapter's factors. PEFT computes in 32 bits whatever an adapter is stored in; 16 bits lose about
  /// 1e-5 of the energy in bfloat16.
  public var type = FloatType.f32
  /// Globs of the modules that get factors; empty for all linear layers.
  public var targets: [String] = []
  /// Save other tensors that differ whole, where PEFT can load that.
  public var savesRest = false
  public var run = RunOptions()

  public init(rank: Int) { self.rank = rank }

  /// - Parameter announce: is given each warning before anything is decomposed.
  /// - Throws: `malformed` when the models do not fit each other, nothing differs or values are not finite;
  ///   `unsupported` for a model that is quantized otherwise than in 4 bits.
  public func callAsFunction(
    _ base: String, _ tuned: String, output: String, announce: (Warning) -> Void
  ) throws(Failure) -> ExtractReport {
    let pair = try ExtractPair(base, tuned)
    let plan = try ExtractPlan(pair, rank: rank, targets: targets.map(Glob.init), savesRest: savesRest)
    var warnings = pair.warnings + plan.warnings
    if run.isDryRun {
      for warning in warnings { announce(warning) }
      return ExtractReport(
        output: output, files: Self.files, rank: rank, modules: [], candidates: plan.modules.map(\.path), saved: [],
        notCaptured: [], bytesOut: 0, seconds: 0, warnings: warnings)
    }
    let started = monotonicSeconds()
    let inputs = pair.base.identities + pair.tuned.identities
    // Before the models are compared, which takes its time.
    let stage = try DirectoryDestination.claim(output, replacing: run.force, inputs: inputs)
    let changes = try ExtractChanges(pair, plan, jobs: run.jobs, style: run.progress)
    let modules = changes.modules.map { plan.modules[$0] }
    guard !modules.isEmpty else {
      throw Failure(.malformed, "has the same linear weights as '\(base)': there is nothing to extract", file: tuned)
    }
    let paths = Set(modules.map(\.path))
    var parameters = pair.names.places.map(\.parameter)
    if pair.isTied { parameters.append(pair.names.outputEmbedding + ".weight") }
    let names = ModuleNames(parameters: parameters)
    let rest = SavedTensors(pair, plan, changes, names, savesRest: savesRest, adapted: paths)
    warnings += rest.warnings + Self.warnings(rest, pair)
    let tensors = try ExtractedTensors(
      pair.tensors, modules: modules, saved: rest.saved, rank: rank, type: type, jobs: run.jobs)
    let config = configuration(pair, plan, modules, rest, names, base: base).text(.indented) + "\n"
    let report = try WriteRun(
      plan: WritePlan(file: Adapter.weightsName, of: tensors),
      destination: DirectoryDestination(made: [(Adapter.configName, config)]), operation: "extract-lora",
      activity: "extracting", recorded: recorded, warnings: warnings, options: run,
      inputs: RunInputs(identities: inputs) { () throws(Failure) in
        try pair.tensors.a.checkUnchanged()
        try pair.tensors.b.checkUnchanged()
      },
      // All workers are at one module.
      jobs: 1
    ).run(into: output, stage: stage, announce: announce)
    return ExtractReport(
      output: output, files: report.files, rank: rank, modules: tensors.reports,
      saved: rest.saved.map { ExtractReport.Tensor(tensor: $0.key, relativeChange: $0.relative) },
      notCaptured: rest.missing.map { Self.tensor($0, pair) }, bytesOut: report.bytesOut,
      seconds: monotonicSeconds() - started, warnings: report.warnings)
  }

  package static let files = [
    Adapter.configName, Adapter.weightsName, Manifest.checksumsName, Manifest.fileName,
  ]

  private static func tensor(_ missing: SavedTensors.Missing, _ pair: ExtractPair) -> ExtractReport.Tensor {
    ExtractReport.Tensor(
      tensor: pair.tensors.infos(missing.position).b.name.string, relativeChange: missing.relative,
      reason: missing.reason)
  }

  /// Merging the adapter will not bring back what it does not hold.
  private static func warnings(_ rest: SavedTensors, _ pair: ExtractPair) -> [Warning] {
    if rest.missing.isEmpty { return [] }
    let shown = rest.missing.map { missing in
      let size = missing.relative.map { ["by \(TensorStatistics.short($0 * 100)) %"] } ?? []
      let facts = (size + (missing.reason == SavedTensors.notAsked ? [] : [missing.reason])).joined(separator: ": ")
      let name = "'\(pair.tensors.infos(missing.position).b.name.string)'"
      return facts.isEmpty ? name : "\(name) (\(facts))"
    }
    let isAskable = rest.missing.contains { $0.reason == SavedTensors.notAsked }
    let way = isAskable ? "; --save-rest saves embeddings, norms, head and biases whole" : ""
    let count = rest.missing.count == 1 ? "1 tensor differs" : "\(rest.missing.count) tensors differ"
    return [
      "\(count) that the adapter does not hold, so that merging it leaves the base's: \(list: shown)\(way)"
    ]
  }

  private func configuration(
    _ pair: ExtractPair, _ plan: ExtractPlan, _ modules: [ExtractPlan.Module], _ rest: SavedTensors,
    _ names: ModuleNames, base: String
  ) -> JSONValue {
    let paths = Set(modules.map(\.path))
    let targets = names.entries(for: paths, .component).map(ExtractedConfiguration.Targets.list)
    var result = ExtractedConfiguration(
      rank: rank, base: base, targets: targets ?? .pattern(ExtractedConfiguration.pattern(of: paths)))
    result.modulesToSave = names.entries(for: rest.modules, .ending) ?? rest.modules.sorted()
    result.isTransposed = modules.contains { plan.isConv1D($0.position) }
    result.hasBiases = rest.hasBiases
    result.tiesWeights = rest.savesTied
    result.taskType = ExtractedConfiguration.taskType(
      ofClass: pair.base.configuration.architecture ?? pair.tuned.configuration.architecture)
    return result.json
  }

  private var recorded: [(key: String, value: JSONValue)] {
    [
      ("rank", .number(rank)), ("dtype", .string(type.torchName)),
      ("targets", .array(targets.map(JSONValue.string))), ("saveRest", .bool(savesRest)),
    ]
  }
}
