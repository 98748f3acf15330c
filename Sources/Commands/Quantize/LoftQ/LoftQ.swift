import Adapters
import Architectures
import Bytes
import Checkpoints
import JSON
import Quantization
import Tensors
import Writing

/// The adapter beside a quantized model that makes good as much of what quantization lost as its rank can: LoftQ
/// (arXiv:2310.08659) with one iteration, of each weight the truncated singular value decomposition of the error. What
/// was measured of the inputs weighs it (QERA, arXiv:2410.06040).
struct LoftQ {
  private let rank: Int
  /// The quantized model and the adapter.
  private let model: String
  let path: String
  let warnings: [Warning]
  private let modules: [QuantizedModule]
  private let configuration: String
  private let original: StoredModel
  private let prepared: Quantize.Prepared
  private let options: RunOptions
  private let recorded: [(key: String, value: JSONValue)]

  static let suffix = "-loftq"

  /// - Parameter output: of the quantized model.
  /// - Throws: `unsupported` for a model without weights to be quantized, `usage` for a rank that none can have.
  init(_ quantize: Quantize, rank: Int, _ prepared: Quantize.Prepared, of original: StoredModel, beside output: String)
    throws(Failure)
  {
    let modules = QuantizedModule.all(of: prepared)
    guard let largest = modules.map(\.largestRank).max() else {
      throw Failure(
        .unsupported, "has no linear layer that is quantized, whose error an adapter could make good (--loftq-rank)",
        file: original.checkpoint.path)
    }
    guard rank <= largest else {
      throw Failure(
        .usage, "option '--loftq-rank': \(rank) is more than \(largest), the highest that a weight here can have")
    }
    let others = prepared.quantized.count - modules.count
    warnings =
      others == 0
      ? [] : ["\(counted(others, "quantized weight")) of experts \(others == 1 ? "has" : "have") no factors"]
    self.rank = rank
    model = Self.trimmed(output)
    path = model + Self.suffix
    self.modules = modules
    self.original = original
    self.prepared = prepared
    options = quantize.run
    configuration =
      Self.configuration(rank, modules, original, base: model).text(.indented) + "\n"
    recorded =
      [("loftqRank", .number(rank))]
      + (quantize.importance.map { [("importance", .string(FileName.last(of: $0)))] } ?? [])
      + (quantize.feedback.map { [("feedback", .string(FileName.last(of: $0)))] } ?? [])
  }

  /// Whether an adapter of an earlier run lies beside an output.
  private static func isThere(beside output: String) -> Bool {
    let path = trimmed(output) + suffix
    return InputDirectory.exists(at: path) && (try? SourceRecord(path: path))?.options?["loftqRank"]?.int != nil
  }

  /// A warning where a model replaces the one that an adapter beside it was made for.
  static func staleWarning(beside output: String) -> Warning? {
    guard isThere(beside: output) else { return nil }
    let path = trimmed(output) + suffix
    return "'\(path.printable())' stays, but it was made for what stood in '\(trimmed(output).printable())' before"
  }

  /// A path without what may stand at its end and says nothing.
  private static func trimmed(_ path: String) -> String {
    var path = path
    while path.count > 1, path.hasSuffix("/") || path.hasSuffix("/.") { path.removeLast() }
    return path
  }

  private static func configuration(
    _ rank: Int, _ modules: [QuantizedModule], _ model: StoredModel, base: String
  ) -> JSONValue {
    let parameters = model.names
    var names = parameters.places.map(\.parameter)
    if parameters.hasOutputEmbedding { names.append(parameters.outputEmbedding + ".weight") }
    let paths = Set(modules.map(\.path))
    let targets = ModuleNames(parameters: names).entries(for: paths, .component)
      .map(ExtractedConfiguration.Targets.list)
    var result = ExtractedConfiguration(
      rank: rank, base: base, targets: targets ?? .pattern(ExtractedConfiguration.pattern(of: paths)))
    result.isTransposed = modules.contains(where: \.isConv1D)
    result.taskType = ExtractedConfiguration.taskType(ofClass: model.configuration.architecture)
    return result.json
  }

  // MARK: - The run

  /// Claims the adapter's place.
  ///
  /// - Throws: `cannotCreate` when something is there that may not be replaced.
  func stage() throws(Failure) -> any Stage {
    try DirectoryDestination.claim(path, replacing: options.force, inputs: prepared.run.inputs.identities)
  }

  /// Bytes that the adapter takes, at most.
  func byteCount() throws(Failure) -> Int { try run(FactorTensors.empty(planned)).neededByteCount() }

  /// The report of a dry run.
  func expected() throws(Failure) -> AdapterReport {
    var dry = try run(FactorTensors.empty(planned))
    dry.options.isDryRun = true
    let report = try dry.run(into: path) { _ in }
    return self.report(
      report, modules.map { .init(module: $0.path, rank: min(rank, $0.largestRank), repaired: nil) })
  }

  /// Reads both models and writes the adapter. The quantized one is whole, whatever happens.
  func write(to stage: any Stage, announce: (Warning) -> Void) throws(Failure) -> AdapterReport {
    do throws(Failure) {
      let quantized = try QuantizedWeights(model)
      let repair = ErrorRepair(
        modules: modules, rank: rank, original: (prepared.run.plan.source, original.checkpoint.path),
        quantized: quantized, measured: prepared.measured, jobs: options.jobs)
      let tensors = try FactorTensors(planned, type: .f32) { number throws(Failure) in
        try repair.factors(of: number)
      }
      let report = try run(tensors, quantized).run(into: path, stage: stage, announce: announce)
      return self.report(report, repair.reports)
    } catch {
      var failure = error
      failure.message = failure.message.replacing("; nothing was left behind", with: "")
      failure.message += "; '\(model)' is whole, '\(path)' was not written"
      if Self.isThere(beside: model) {
        failure.message += ", and the one that is there fits what '\(model)' was before"
      }
      throw failure
    }
  }

  private var planned: [FactorTensors.Module] {
    modules.map { module in
      FactorTensors.Module(
        path: module.path, rank: rank, inputs: module.inputs, outputs: module.outputs,
        storedByteCount: prepared.run.plan.source.storedByteCount(of: module.step.tensor))
    }
  }

  private func run(_ tensors: FactorTensors, _ quantized: QuantizedWeights? = nil) throws(Failure) -> WriteRun {
    var inputs = prepared.run.inputs
    let check = inputs.checkUnchanged
    inputs.checkUnchanged = { () throws(Failure) in
      try check()
      try quantized?.checkUnchanged()
    }
    return WriteRun(
      plan: try WritePlan(file: Adapter.weightsName, of: tensors),
      destination: DirectoryDestination(made: [(Adapter.configName, configuration)]), operation: "quantize",
      activity: "repairing", source: model, recorded: recorded, warnings: [], options: options, inputs: inputs,
      // All workers are at one module.
      jobs: 1)
  }

  private func report(_ run: RunReport, _ modules: [AdapterReport.Module]) -> AdapterReport {
    AdapterReport(
      output: path, files: run.files, rank: rank, modules: modules, bytesOut: run.bytesOut, seconds: run.seconds)
  }
}

extension FactorTensors {
  /// Factors that are planned and never made.
  fileprivate static func empty(_ modules: [Module]) throws(Failure) -> FactorTensors {
    try FactorTensors(modules, type: .f32) { _ throws(Failure) in throw Failure(.internal, "no factors") }
  }
}
