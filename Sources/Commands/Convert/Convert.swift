import Adapters
public import Bytes
package import Checkpoints
import GGUF
package import JSON
import PackedWeights
public import Quantization
import Safetensors
import Tensors
public import Writing

/// `nibble convert`: the same weights in other shards or another dtype, 4-bit ones dequantized.
public struct Convert: Sendable {
  /// The dtype of the output's floating-point tensors; nil keeps that of each.
  public var type: FloatType?
  /// The model that an adapter was trained on.
  public var base: String?
  public var run = RunOptions()

  public init() {}

  /// - Throws: `malformed` for a value that float16 cannot hold, naming tensor and index.
  public func callAsFunction(
    _ source: String, output: String, announce: (Warning) -> Void
  ) throws(Failure) -> RunReport {
    if let base { return try convertAdapter(source, base: base, output: output, announce: announce) }
    let format = try CheckpointFormat.detect(source)
    let isGGUF = output.hasSuffix(".gguf")
    let isAdapter = [.adapterDirectory, .mlxAdapterDirectory].contains(format)
    let files = isGGUF && isAdapter ? nil : try CheckpointFiles(path: source, format, config: run.config)
    guard let files, try files.gguf?.checkpoint.metadata.text("general.type") != "adapter" else {
      throw Failure(.usage, "'\(source)' is an adapter; name the model that it was trained on with --base")
    }
    if isGGUF { return try convertToGGUF(files, output: output, announce: announce) }
    let model = try StoredModel(files, blocksAs: type ?? .bf16)
    do throws(Failure) {
      if model.isAdapter { return try prepareAdapter(model).run(into: output, announce: announce) }
      return try prepare(model).run(into: output, announce: announce)
    } catch { throw model.located(error) }
  }

  package func prepare(_ model: StoredModel) throws(Failure) -> WriteRun {
    let contents = try model.checkContents()
    let target = type
    let method = model.quantizationMethod
    if case .other(let name) = method, target != nil {
      throw Failure(
        .unsupported, "is quantized (\(name)); its dtype cannot be changed, only its shards (--dtype keep)",
        file: model.checkpoint.path)
    }
    let dequantized =
      try target.map { target throws(Failure) in
        try DequantizedSource(model.logical, for: target)
      } ?? DequantizedSource(model.logical)
    // 4-bit weights of `Conv1D` are [out, in]; otherwise they are [in, out].
    let transposed: Set<Int> = method == .fourBit ? model.transposedWeights.filter(dequantized.isPacked) : []
    var conversions: [Int: FloatType] = [:]
    var steps: [Step] = []
    for (index, info) in dequantized.tensors.enumerated() {
      var origin = dequantized.origin(of: index)
      if let target, info.type.isFloat, info.type != target.elementType {
        conversions[index] = target
        if case .stored(let stored) = origin { origin = .derived([stored]) }
      }
      steps.append(Step(tensor: index, encoder: 0, origin: origin))
    }
    var source: any TensorSource = dequantized
    if !transposed.isEmpty { source = try TransposedSource(source, transposed) }
    if !conversions.isEmpty { source = try ConvertedSource(source, conversions) }
    var layout = StepLayout(maxShardBytes: run.maxShardBytes)
    // What is copied as it is may be described there.
    if case .other = method, let stored = model.checkpoint.files.safetensors {
      layout.metadata = stored.checkpoint.metadata
    }
    let plan = try layout.plan(
      steps, [CopyEncoder()], source: source, stored: model.checkpoint)
    let side = try SideFiles(of: model)
    return WriteRun(
      plan: plan, destination: DirectoryDestination(config: config(of: model, method, target), sideFiles: side),
      operation: "convert", activity: "converting", source: model.checkpoint.path,
      recorded: [("dtype", .string(type.choice)), ("maxShardSize", .number(run.maxShardBytes))],
      warnings: model.warnings + contents.warnings() + side.warnings, options: run, inputs: RunInputs(model))
  }

  private func config(of model: StoredModel, _ method: QuantizationMethod, _ target: FloatType?) -> JSONValue? {
    guard var config = model.config else { return nil }
    if method == .fourBit { config["quantization_config"] = nil }
    if let target {
      let keys = ["dtype", "torch_dtype"].filter { config[$0] != nil }
      for key in keys.isEmpty ? ["dtype"] : keys { config[key] = .string(target.torchName) }
    }
    return config
  }
}

extension Convert {
  /// The run that a manifest tells of.
  ///
  /// - Returns: nil for options that are not those of this verb.
  package init?(recorded options: JSONValue) {
    guard let name = options["dtype"]?.string, FloatType.namesToKeep.contains(name) else { return nil }
    self.init()
    type = FloatType(torchName: name)
    run.maxShardBytes = .max
  }

  /// The plan of the run: for a directory, or for GGUF.
  package func plan(from files: CheckpointFiles, asGGUF: Bool) throws(Failure) -> WritePlan {
    guard asGGUF else {
      let model = try StoredModel(files, blocksAs: type ?? .bf16)
      return try (model.isAdapter ? prepareAdapter(model) : prepare(model)).plan
    }
    let target = type
    return try GGUFContents(files, isExact: target != nil).plan(as: target, name: "again.gguf", maxShardBytes: .max)
  }
}
