import Architectures
public import Bytes
package import Checkpoints
package import JSON
import ModelFamilies
import PackedWeights
public import Quantization
import Tensors
public import Writing

/// `nibble quantize SOURCE -o OUT --scheme mlx-q4`: a directory that mlx-lm loads, its weights in MLX's groups.
public struct QuantizeToMLX: Sendable {
  /// The format of most weights.
  public let format: GroupFormat
  /// Dequantize a 4-bit source first.
  public var forcesRequantization = false
  public var run = RunOptions()

  /// Positions of the encoders, by their use.
  private static let copying = 0
  private static let quantizing = 1
  private static let finer = 2

  public init(_ format: GroupFormat) { self.format = format }

  /// The run that a manifest tells of; nil for options that are not those of this verb.
  package init?(recorded options: JSONValue) {
    guard let scheme = options["scheme"]?.string.flatMap(MLXScheme.init), let groupSize = options["groupSize"]?.int,
      let format = scheme.format(groupSize: groupSize)
    else { return nil }
    self.format = format
    forcesRequantization = true
  }

  /// The quantization that makes the weights of a model again; nil for groups that are not known here.
  package init?(of model: StoredModel) {
    guard let stated = model.config?["quantization"] ?? model.config?["quantization_config"],
      let mode = GroupFormat.Mode(rawValue: stated["mode"]?.string ?? GroupFormat.Mode.affine.rawValue),
      let bits = stated["bits"]?.int, let groupSize = stated["group_size"]?.int,
      let format = GroupFormat(mode: mode, bits: bits, groupSize: groupSize)
    else { return nil }
    self.format = format
    forcesRequantization = true
  }

  /// - Parameters:
  ///   - announce: is given each warning before any data is read.
  /// - Throws: `unsupported` for a source that is already quantized and for a model that mlx-lm would not load;
  ///   `malformed` for a weight that is not finite, naming tensor and index.
  public func callAsFunction(
    _ source: String, output: String, announce: (Warning) -> Void
  ) throws(Failure) -> RunReport {
    try StoredModel.run(source, run, into: output, announce: announce, plannedBy: prepare)
  }

  package func prepare(_ model: StoredModel) throws(Failure) -> WriteRun {
    try model.refuseAdapter(Quantize.adapterReason)
    let contents = try model.checkContents()
    try model.checkQuantizable(forced: forcesRequantization)
    guard let config = model.config else {
      throw Failure(
        .unsupported, "has no config.json, by which mlx-lm knows a model (--config)", file: model.checkpoint.path)
    }
    let dequantized = DequantizedSource(model.logical)
    let layout = try MLXModel(
      dequantized.tensors, config: config, configuration: model.configuration, format: format,
      unused: Set(contents.unused), isOriented: dequantized.isPacked)
    let conversions = conversions(dequantized.tensors, model, config)
    let converted = conversions.isEmpty ? nil : try ConvertedSource(dequantized, conversions)
    let source = try PlannedSource(converted ?? dequantized, layout.weights.map(\.planned))
    let steps = layout.weights.enumerated().map { index, weight in
      Step(
        tensor: index, encoder: encoder(of: weight), origin: origin(of: weight, dequantized, Set(conversions.keys)))
    }
    let plan = try StepLayout(maxShardBytes: run.maxShardBytes, metadata: [("format", "mlx")]).plan(
      steps, encoders, source: source, stored: model.checkpoint)
    let side = try SideFiles(of: model)
    let generation = model.sideFiles.contains(MLXModel.generationName) ? try generation(model) : nil
    var warnings = model.warnings + contents.warnings + side.warnings
    if let warning = layout.warning(config) { warnings.append(warning) }
    if !contents.unused.isEmpty {
      warnings.append("left out, since they are no parameters of the model: \(names: contents.unused)")
    }
    if !layout.weights.contains(where: { $0.format != nil }) {
      warnings.append("no tensor is quantized: no matrix has rows of whole groups of \(format.groupSize)")
    }
    return WriteRun(
      plan: plan,
      destination: DirectoryDestination(
        config: layout.configuration(config, format, generation: generation), sideFiles: side),
      operation: "quantize", activity: "quantizing", source: model.checkpoint.path, recorded: recorded,
      warnings: warnings, options: run, inputs: RunInputs(model), summary: summary(plan))
  }

  // MARK: - The weights

  private var encoders: [any TensorEncoder] {
    [CopyEncoder(fate: "quantized"), GroupEncoder(format: format)]
      + [MLXModel.finer].compactMap { $0.map(GroupEncoder.init) }
  }

  private func encoder(of weight: MLXModel.Weight) -> Int {
    guard let own = weight.format else { return Self.copying }
    return own == format ? Self.quantizing : Self.finer
  }

  private func origin(
    of weight: MLXModel.Weight, _ source: DequantizedSource, _ converted: Set<Int>
  ) -> StoredOrigin {
    let members: [Int]
    switch weight.planned.source {
    case .stored(let index):
      let origin = source.origin(of: index)
      if weight.planned.transform == .none, !converted.contains(index) { return origin }
      members = [index]
    case .stacked(let indices): members = indices
    case .values: members = []
    case .part(let index, _): members = [index]
    }
    return .derived(
      members.flatMap { (member) -> [Int] in
        switch source.origin(of: member) {
        case .stored(let stored), .traced(let stored): [stored]
        case .derived(let stored): stored
        }
      })
  }

  /// mlx-lm's converter casts everything to `torch_dtype`, where config.json has that member; F64 it does not know, and
  /// norms of GGUF have the type of F32 only because GGUF has no other.
  private func conversions(
    _ tensors: [TensorInfo], _ model: StoredModel, _ config: JSONValue
  ) -> [Int: FloatType] {
    let wanted = config["torch_dtype"]?.string.flatMap(FloatType.init(torchName:)) ?? model.vectorType
    var conversions: [Int: FloatType] = [:]
    for (index, info) in tensors.enumerated() where info.type.isFloat {
      let target = wanted ?? (info.type == .f64 ? .f32 : nil)
      if let target, target.elementType != info.type { conversions[index] = target }
    }
    return conversions
  }

  /// Settings that cannot be read are none, as they are for mlx-lm.
  private func generation(_ model: StoredModel) throws(Failure) -> JSONValue? {
    let name = MLXModel.generationName
    let bytes = try model.sideFile(name).contents(limit: StoredModel.configLimit)
    return try? JSONValue(parsing: bytes, .python, file: name)
  }

  private func summary(_ plan: WritePlan) -> QuantizationSummary {
    QuantizationSummary(plan) { step in
      plan.info(of: step).shape.count < 2
        ? .init("norm or bias", "norms and biases")
        : .init("matrix whose rows are no whole groups", "matrices whose rows are no whole groups")
    }
  }

  private var recorded: [(key: String, value: JSONValue)] {
    [
      ("scheme", .string(MLXScheme.name(of: format))), ("groupSize", .number(format.groupSize)),
      ("maxShardSize", .number(run.maxShardBytes)),
    ]
  }
}
