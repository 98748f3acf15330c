import Architectures
public import Bytes
public import Calibration
package import Checkpoints
import Console
import JSON
import PackedWeights
public import Quantization
package import Tensors
public import Writing

/// `nibble quantize`: a 16- or 32-bit checkpoint becomes one that bitsandbytes loads in 4 bits.
public struct Quantize: Sendable {
  public enum Code: String, Sendable, CaseIterable { case nf4, fp4 }

  public enum Target: String, Sendable, CaseIterable {
    case transformers5 = "transformers-5"
    case transformers4 = "transformers-4"
  }

  public enum Storage: String, Sendable, CaseIterable {
    case uint8, bfloat16, float16, float32

    package var elementType: ElementType {
      switch self {
      case .uint8: .u8
      case .bfloat16: .bf16
      case .float16: .f16
      case .float32: .f32
      }
    }
  }

  public var code = Code.nf4
  /// Weights that share one absmax: 32, 64, … 4096.
  public var blockSize = 64
  public var usesDoubleQuantization = true
  /// Find scales of less error than the blocks' largest magnitudes have; nil for these, as bitsandbytes does.
  public var scaleSearch: ScaleSearch.Kind?
  /// A file of measured inputs, by which that search weighs the columns.
  public var importance: String?
  /// A file of `nibble.calibrate --hessian`, by which the error in one column is made good in those behind it.
  public var feedback: String?
  public var factors = FactorSettings()
  /// The rank of an adapter beside the output that makes good what quantization lost; nil for none.
  public var loftqRank: Int?
  /// Bits for each weight that could be quantized: modules that lose most for each byte they save stay in 16.
  public var targetBits: Double?
  /// Modules that such a run has chosen, where it is made again.
  var keptForBits: [String] = []
  public var storage = Storage.uint8
  public var computeType = FloatType.bf16
  public var target = Target.transformers5
  /// Globs of module paths, or `towers`.
  public var keep: [String] = []
  /// Dequantize a 4-bit source first.
  public var forcesRequantization = false
  public var run = RunOptions()

  static let adapterReason =
    "nothing loads its factors in 4 bits; merge it into its base and quantize that ('nibble merge BASE ADAPTER -o "
    + "OUT', with --scheme in one step)"

  public static let blockSizes = FourBitFormat.blockSizes

  public init() {}

  /// - Parameters:
  ///   - announce: is given each warning before any data is read.
  /// - Throws: `unsupported` for a source that is already quantized.
  public func callAsFunction(
    _ source: String, output: String, announce: (Warning) -> Void
  ) throws(Failure) -> RunReport {
    if let loftqRank {
      return try run(with: loftqRank, source, output: output, announce: announce)
    }
    return try StoredModel.run(source, run, into: output, announce: announce) { model throws(Failure) in
      var write = try prepare(model)
      if run.force, let warning = LoftQ.staleWarning(beside: output) { write.warnings.append(warning) }
      return write
    }
  }

  package func prepare(_ model: StoredModel) throws(Failure) -> WriteRun { try prepared(model).run }

  func prepared(_ model: StoredModel) throws(Failure) -> Prepared {
    let contents = try model.checkContents()
    try model.refuseAdapter(Self.adapterReason)
    try model.checkQuantizable(forced: forcesRequantization)
    guard let format = FourBitFormat(code: FourBitCode(code), blockSize: blockSize) else {
      throw Failure(.usage, "block size \(blockSize) is not one of \(FourBitFormat.blockSizes)")
    }
    let scheme = FourBitScheme(
      format: format, usesDoubleQuantization: usesDoubleQuantization, storage: storage.elementType)
    let measured = try MeasuredInputs(self, for: model)
    var (weights, preparation) = try planned(model, keep: keptForBits)
    let source: any TensorSource
    var choice: TargetBits.Choice?
    if let targetBits {
      choice = try spend(targetBits, model, scheme, measured, weights, preparation)
      (weights, preparation) = try planned(model, keep: choice?.modules ?? [])
    }
    source = try preparation.source()
    let plan = try StepLayout(maxShardBytes: run.maxShardBytes).plan(
      preparation.steps, FourBitPreparation.encoders(scheme, search: measured.search, fate: "quantized"),
      source: source, stored: model.checkpoint)
    let quantized = preparation.steps.filter { $0.encoder == FourBitPreparation.quantizing }
    var warnings = model.warnings + contents.warnings(besides: weights.warnings) + weights.warnings
    warnings += try measured.warnings(for: quantized.map { source.tensors[$0.tensor] }, scheme)
    warnings += expertWarnings(weights)
    warnings += preparation.warnings
    if quantized.isEmpty { warnings.append("no tensor is quantized: there is no linear layer's weight among them") }
    warnings += storageWarnings(model)
    let side = try SideFiles(of: model)
    warnings += side.warnings
    var inputs = RunInputs(model)
    for file in measured.files { inputs.add(file) }
    let run = WriteRun(
      plan: plan,
      destination: DirectoryDestination(config: config(of: model, skip: weights.skipModules), sideFiles: side),
      operation: "quantize", activity: "quantizing", source: model.checkpoint.path,
      recorded: recorded(choice), warnings: warnings, options: self.run, inputs: inputs,
      summary: summary(plan, weights, choice))
    return Prepared(
      run: run, weights: weights, measured: measured,
      quantized: plan.steps.filter { $0.encoder == FourBitPreparation.quantizing })
  }

  /// - Parameter keep: modules that stay as they are besides those that the user names.
  private func planned(
    _ model: StoredModel, keep more: [String]
  ) throws(Failure) -> (weights: WeightPlan, preparation: FourBitPreparation) {
    let dequantized = DequantizedSource(model.logical)
    let weights = planWeights(
      dequantized.tensors, configuration: model.configuration,
      target: target == .transformers5 ? .transformers5 : .transformers4, keep: (keep + more).map(Keep.init))
    if let refusal = weights.refusal { throw Failure(.unsupported, refusal, file: model.checkpoint.path) }
    var preparation = FourBitPreparation(
      dequantized, copiedF32: model.vectorType, origin: dequantized.origin)
    for (index, disposition) in weights.dispositions.enumerated() {
      // A weight that is in 4 bits already was transposed when it was quantized.
      try preparation.add(index, disposition, isOriented: dequantized.isPacked(index))
    }
    return (weights, preparation)
  }

  private func spend(
    _ bits: Double, _ model: StoredModel, _ scheme: FourBitScheme, _ measured: MeasuredInputs, _ weights: WeightPlan,
    _ preparation: FourBitPreparation
  ) throws(Failure) -> TargetBits.Choice {
    let target = TargetBits(bits: bits, scheme: scheme, search: measured.search, copiedF32: model.vectorType)
    let scan = LossScan(source: try preparation.source(), jobs: run.jobs, style: run.progress)
    return try target.choose(
      preparation.steps.filter { $0.encoder == FourBitPreparation.quantizing }, scan, modules: weights.modules,
      weigh: measured.means
    ) { modules throws(Failure) in
      let steps = try planned(model, keep: modules).preparation.steps
      return Set(steps.filter { $0.encoder == FourBitPreparation.quantizing }.map(\.tensor))
    }
  }

  private func summary(_ plan: WritePlan, _ weights: WeightPlan, _ choice: TargetBits.Choice?) -> QuantizationSummary {
    guard let choice else { return QuantizationSummary(plan, weights.dispositions) }
    let chosen = Set(choice.modules)
    var summary = QuantizationSummary(plan) { step in
      let info = plan.info(of: step)
      if let module = weights.modules[step.tensor], chosen.contains(module), info.shape.count > 1 {
        return .init("weight by --target-bits", "weights by --target-bits")
      }
      if case .keep(let reason) = weights.dispositions[step.tensor] { return .init(reason, info) }
      return .init("tensor as it was", "tensors as they were")
    }
    summary.budget = choice.summary
    return summary
  }

  func expertWarnings(_ weights: WeightPlan) -> [Warning] {
    guard weights.expertTensors > 0 else { return [] }
    return [
      "\(weights.expertTensors) expert tensors (\(byteText(weights.expertBytes))) stay as they are: transformers 5 "
        + "cannot load 4-bit experts ('nibble quantize --target transformers-4' quantizes experts that are stored one "
        + "by one)"
    ]
  }

  private func storageWarnings(_ model: StoredModel) -> [Warning] {
    guard storage != .uint8 else { return [] }
    return [
      "--quant-storage \(storage.rawValue): load with dtype=\(storage.rawValue) only (config.json says so); "
        + "transformers 4 casts the packed bytes silently when it loads them in another dtype"
    ]
  }

  // MARK: - config.json

  private func config(of model: StoredModel, skip: [String]) -> JSONValue? {
    guard var config = model.config else { return nil }
    config["quantization_config"] = quantizationConfig(skip: skip)
    if storage != .uint8 {
      // Packed bytes are cast when the model is loaded in any other dtype.
      if config["torch_dtype"] != nil { config["torch_dtype"] = .string(storage.rawValue) }
      if config["dtype"] != nil || config["torch_dtype"] == nil { config["dtype"] = .string(storage.rawValue) }
    }
    return config
  }

  func quantizationConfig(skip: [String]) -> JSONValue {
    .object([
      "_load_in_4bit": true, "_load_in_8bit": false,
      "bnb_4bit_compute_dtype": .string(computeType.torchName), "bnb_4bit_quant_storage": .string(storage.rawValue),
      "bnb_4bit_quant_type": .string(code.rawValue), "bnb_4bit_use_double_quant": .bool(usesDoubleQuantization),
      "llm_int8_enable_fp32_cpu_offload": false, "llm_int8_has_fp16_weight": false,
      "llm_int8_skip_modules": .array(skip.map(JSONValue.string)),
      "llm_int8_threshold": JSONNumber(6.0).map(JSONValue.number) ?? 6,
      "load_in_4bit": true, "load_in_8bit": false, "quant_method": "bitsandbytes",
    ])
  }
}

extension FourBitCode {
  package init(_ code: Quantize.Code) {
    switch code {
    case .nf4: self = .nf4
    case .fp4: self = .fp4
    }
  }
}

extension StoredModel {
  /// Opens a model, plans what is made of it, and writes that. A failure names the file that holds its tensor.
  static func run(
    _ source: String, _ options: RunOptions, into output: String, announce: (Warning) -> Void,
    plannedBy plan: (StoredModel) throws(Failure) -> WriteRun
  ) throws(Failure) -> RunReport {
    let model = try StoredModel(CheckpointFiles(path: source, config: options.config))
    do throws(Failure) {
      return try plan(model).run(into: output, announce: announce)
    } catch { throw model.located(error) }
  }

  /// - Parameter forced: one in few bits that can be read is dequantized first.
  /// - Throws: `unsupported` for a source that is already quantized.
  func checkQuantizable(forced: Bool) throws(Failure) {
    func checkForced(_ method: String) throws(Failure) {
      guard forced else {
        throw Failure(
          .unsupported,
          "is already quantized (\(method)); --force-requantize dequantizes it and quantizes again, "
            + "'nibble convert' turns it back into 16 bits", file: checkpoint.path)
      }
    }
    switch quantizationMethod {
    case .none: if let method = checkpoint.dequantizes { try checkForced(method) }
    case .fourBit: try checkForced("bitsandbytes 4-bit")
    case .other(let method):
      throw Failure(
        .unsupported, "is already quantized (\(method)); start from the original 16-bit checkpoint",
        file: checkpoint.path)
    }
  }
}
