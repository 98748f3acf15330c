import Architectures
public import Bytes
public import Calibration
package import Checkpoints
package import JSON
public import Quantization
import Tensors
public import Writing

/// `nibble quantize SOURCE -o OUT --scheme fp8-channel`: a directory that vLLM serves, and that transformers loads with
/// compressed-tensors.
public struct QuantizeToCompressedTensors: Sendable {
  public let format: ScaledFormat
  /// Find scales of less error than compressed-tensors' own have; nil for these.
  public var scaleSearch: ScaleSearch.Kind?
  /// A file of measured inputs, by which that search weighs the columns.
  public var importance: String?
  /// A file of `nibble.calibrate --hessian`, by which the error in one column is made good in those behind it.
  public var feedback: String?
  public var factors = FactorSettings()
  /// Globs of module paths, or `towers`.
  public var keep: [String] = []
  /// Dequantize a source of few bits first.
  public var forcesRequantization = false
  public var run = RunOptions()

  /// Positions of the encoders, by their use.
  private static let copying = 0
  private static let quantizing = 1

  /// Last parts of the paths of layers that choose experts. They are small, and everything hangs on them.
  private static let routers: Set = ["gate", "router", "shared_expert_gate"]

  /// Layers that vLLM computes as one, by the last parts of their paths.
  private static let fused = [["q_proj", "k_proj", "v_proj"], ["gate_proj", "up_proj"], ["w1", "w3"]]

  public init(_ format: ScaledFormat) { self.format = format }

  /// The run that a manifest tells of; nil for options that are not those of this verb.
  package init?(recorded options: JSONValue) {
    guard let scheme = options["scheme"]?.string.flatMap(CompressedScheme.init), let keep = options["keep"]?.array,
      let format = scheme.format(groupSize: scheme == .w4a16 ? options["groupSize"]?.int : nil)
    else { return nil }
    self.format = format
    if let name = options["scaleSearch"]?.string {
      guard let kind = ScaleSearch.Kind(rawValue: name) else { return nil }
      scaleSearch = kind
    }
    importance = options["importance"]?.string
    feedback = options["feedback"]?.string
    guard let factors = FactorSettings(recorded: options) else { return nil }
    self.factors = factors
    self.keep = keep.compactMap(\.string)
    forcesRequantization = true
  }

  /// - Parameters:
  ///   - announce: is given each warning before any data is read.
  /// - Throws: `unsupported` for a source that is already quantized; `malformed` for a weight that is not finite, naming
  ///   tensor and index.
  public func callAsFunction(
    _ source: String, output: String, announce: (Warning) -> Void
  ) throws(Failure) -> RunReport {
    try StoredModel.run(source, run, into: output, announce: announce, plannedBy: prepare)
  }

  package func prepare(_ model: StoredModel) throws(Failure) -> WriteRun {
    if !format.isSearchable, scaleSearch != nil || feedback != nil {
      throw Failure(
        .usage,
        "option '\(scaleSearch != nil ? "--scale-search" : "--feedback")' is not for "
          + "\(CompressedScheme(format).rawValue), whose 8 bits lose next to nothing")
    }
    try model.refuseAdapter(Quantize.adapterReason)
    let contents = try model.checkContents()
    try model.checkQuantizable(forced: forcesRequantization)
    guard var config = model.config else {
      throw Failure(
        .unsupported, "has no config.json, which has to say how its weights are stored", file: model.checkpoint.path)
    }
    let dequantized = DequantizedSource(model.logical)
    let tensors = dequantized.tensors
    // Experts that are stored one by one are served so.
    let weights = planWeights(
      tensors, configuration: model.configuration, target: .transformers4, keep: keep.map(Keep.init))
    let chosen = tensors.indices.filter { index in
      weights.dispositions[index] == .quantize && holds(tensors[index], weights.modules[index])
    }
    let narrowed = Set(chosen.filter { tensors[$0].type == .f64 })
    let source: any TensorSource =
      narrowed.isEmpty
      ? dequantized : try ConvertedSource(dequantized, narrowed.reduce(into: [:]) { $0[$1] = FloatType.f32 })
    let quantized = Set(chosen)
    let steps = tensors.indices.map { index in
      var origin = dequantized.origin(of: index)
      if narrowed.contains(index), case .stored(let stored) = origin { origin = .derived([stored]) }
      return Step(tensor: index, encoder: quantized.contains(index) ? Self.quantizing : Self.copying, origin: origin)
    }
    let measured = try MeasuredInputs(scaleSearch, importance: importance, feedback: feedback, factors, for: model)
    let plan = try StepLayout(maxShardBytes: run.maxShardBytes).plan(
      steps, encoders(source, chosen, measured.search), source: source, stored: model.checkpoint)
    let ignored = ignored(tensors, weights, quantized)
    config["quantization_config"] = CompressedScheme.configuration(format, ignored: ignored)
    let side = try SideFiles(of: model)
    var warnings = model.warnings + contents.warnings(besides: weights.warnings) + weights.warnings + side.warnings
    warnings += try measured.warnings(for: chosen.map { source.tensors[$0] }) { _ in true }
    if chosen.isEmpty { warnings.append("no tensor is quantized: there is no linear layer's weight among them") }
    var inputs = RunInputs(model)
    for file in measured.files { inputs.add(file) }
    return WriteRun(
      plan: plan, destination: DirectoryDestination(config: config, sideFiles: side), operation: "quantize",
      activity: "quantizing", source: model.checkpoint.path, recorded: recorded, warnings: warnings, options: run,
      inputs: inputs, summary: summary(plan, quantized, weights.dispositions))
  }

  // MARK: - The weights

  private func holds(_ info: TensorInfo, _ module: String?) -> Bool {
    guard info.shape.count == 2, let columns = info.shape.last, columns > 0, info.name.hasSuffix(ScaledEncoder.suffix),
      let module, let last = module.split(separator: ".").last, !Self.routers.contains(String(last))
    else { return false }
    return format.holds(columns: columns)
  }

  private func encoders(
    _ source: any TensorSource, _ chosen: [Int], _ search: ScaleSearch?
  ) -> [any TensorEncoder] {
    let magnitudes = format.kind == .nvfp4 ? LargestMagnitudes(source, groups: groups(source.tensors, chosen)) : nil
    return [CopyEncoder(fate: "quantized"), ScaledEncoder(format: format, magnitudes: magnitudes, search: search)]
  }

  /// The weights that share the scale of whole matrices: those of one layer that are computed as one.
  private func groups(_ tensors: [TensorInfo], _ chosen: [Int]) -> [[Int]] {
    var places: [String: Int] = [:]
    var groups: [[Int]] = []
    for index in chosen {
      var key = tensors[index].name.string
      let parts = key.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
      if parts.count > 1, let names = Self.fused.first(where: { $0.contains(parts[parts.count - 2]) }) {
        key = (parts.dropLast(2) + [names[0]]).joined(separator: ".")
      }
      if let place = places[key] {
        groups[place].append(index)
      } else {
        places[key] = groups.count
        groups.append([index])
      }
    }
    return groups
  }

  /// Linear layers, and whatever else holds matrices that a loader might take for some.
  private func ignored(_ tensors: [TensorInfo], _ weights: WeightPlan, _ quantized: Set<Int>) -> [String] {
    var names = Set(weights.skipModules)
    for (index, module) in weights.modules.enumerated() where !quantized.contains(index) {
      if let module { names.insert(module) }
    }
    for index in quantized { if let module = weights.modules[index] { names.remove(module) } }
    return names.sorted { Array($0.utf8).lexicographicallyPrecedes(Array($1.utf8)) }
  }

  private func summary(_ plan: WritePlan, _ quantized: Set<Int>, _ dispositions: [Disposition]) -> QuantizationSummary {
    QuantizationSummary(plan) { step in
      let info = plan.info(of: step)
      if info.shape.count < 2 { return .init("norm or bias", "norms and biases") }
      if dispositions[step.tensor] == .keep(.userKept) { return .init(.userKept, info) }
      return dispositions[step.tensor] == .quantize
        ? .init(
          "router, or matrix whose rows are no whole groups", "routers, and matrices whose rows are no whole groups")
        : .init("embedding, head or other matrix", "embeddings, heads and other matrices")
    }
  }

  private var recorded: [(key: String, value: JSONValue)] {
    [
      ("scheme", .string(CompressedScheme(format).rawValue)), ("groupSize", .number(format.blockColumns ?? 0)),
      ("keep", .array(keep.map(JSONValue.string))), ("maxShardSize", .number(run.maxShardBytes)),
    ] + (scaleSearch.map { [("scaleSearch", .string($0.rawValue))] } ?? [])
      + (importance.map { [("importance", .string(FileName.last(of: $0)))] } ?? [])
      + (feedback.map { [("feedback", .string(FileName.last(of: $0)))] + factors.recorded } ?? [])
  }
}
