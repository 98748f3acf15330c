public import Adapters
import Architectures
public import Bytes
package import Checkpoints
package import JSON
import ModelFamilies
public import Quantization
import Tensors
public import TypeMixtures
public import Writing

/// `nibble merge`: adapters into the weights of their base.
public struct Merge: Sendable {
  public var settings = MergeSettings()
  /// The dtype of the output's tensors; nil keeps that of each.
  public var type: FloatType?
  /// The 4-bit type to which the merged weights are quantized in the same pass; nil for none.
  public var scheme: Quantize.Code?
  /// How the scales of these are found; nil for the blocks' largest magnitudes.
  public var scaleSearch: ScaleSearch.Kind?
  /// Whether the experts of a gpt-oss model are written in MXFP4.
  public var quantizesExperts = false
  /// The scheme for a GGUF file.
  public var ggufScheme: GGUFScheme?
  /// Merge onto what quantization leaves of the base's weights: an adapter trained with QLoRA saw those.
  public var trainedAs: Quantize.Code?
  public var run = RunOptions()

  public init() {}

  /// - Parameter announce: is given each warning before any data is read.
  /// - Throws: `malformed` when an adapter does not fit the base or a result is not finite, `unsupported` for an
  ///   adapter that cannot be merged.
  public func callAsFunction(
    _ base: String, adapters: [String], output: String, announce: (Warning) -> Void
  ) throws(Failure) -> RunReport {
    if scaleSearch != nil, scheme == nil {
      throw Failure(.usage, "option '--scale-search' goes with --scheme nf4 or fp4")
    }
    if output.hasSuffix(".gguf") {
      return try mergeToGGUF(base, adapters: adapters, output: output, announce: announce)
    }
    let model = try StoredModel(CheckpointFiles(path: base, config: run.config))
    do throws(Failure) {
      return try prepare(model, open(adapters, for: model)).run(into: output, announce: announce)
    } catch { throw model.located(error) }
  }

  package func prepare(_ model: StoredModel, _ adapters: [Adapter]) throws(Failure) -> WriteRun {
    try check(model)
    let contents = try model.checkContents()
    let base = try MergeBase(model, trainedAs: trainedAs, isQuantizedAgain: scheme != nil)
    let target = type
    let merged = try MergePlan(base: base.model, adapters: adapters, settings: settings, type: target)
    // Reads the adapters whole, so whatever headers can tell comes before it.
    let provenance = try MergeProvenance(model, adapters, settings)
    var warnings = try model.warnings + contents.warnings() + merged.warnings + doubts(adapters, model)
    var config = config(of: model, base, merged, target)
    let steps: [Step]
    let source: any TensorSource
    let encoders: [any TensorEncoder]
    var dispositions: [Disposition]?
    var experts: GptOssExperts?
    if let scheme {
      let quantized = try MergeQuantization(
        model, base, merged, code: FourBitCode(scheme), configuration: config.map(ModelConfiguration.init))
      (steps, source) = (quantized.steps, quantized.source)
      encoders = FourBitPreparation.encoders(
        quantized.scheme, search: scaleSearch.map { ScaleSearch($0) }, fate: "quantized")
      warnings += quantized.warnings
      dispositions = quantized.dispositions
      config?["quantization_config"] = quantized.configuration
    } else if quantizesExperts {
      let quantized = try MergeExperts(model, base, merged)
      (steps, source, encoders) = (quantized.steps, quantized.source, quantized.encoders)
      warnings += quantized.experts.warnings
      config?["quantization_config"] = quantized.experts.configuration
      experts = quantized.experts
    } else {
      steps = merged.source.items.indices.map { index in
        let item = merged.source.items[index]
        return Step(tensor: index, encoder: item.hasSums ? 0 : 1, origin: base.origin(of: item))
      }
      (source, encoders) = (merged.source, [CopyEncoder(), CopyEncoder(fate: "merged")])
    }
    let plan = try StepLayout(maxShardBytes: run.maxShardBytes).plan(
      steps, encoders, source: source, stored: model.checkpoint)
    let side = try SideFiles(of: model, adapters: adapters)
    warnings += side.warnings
    return WriteRun(
      plan: plan, destination: DirectoryDestination(config: config, sideFiles: side), operation: "merge",
      activity: "merging", source: model.checkpoint.path, recorded: recorded(provenance), warnings: warnings,
      options: run, inputs: RunInputs(model, adapters),
      summary: scheme == nil ? experts?.summary(plan) : QuantizationSummary(plan, dispositions),
      changes: { MergeReport.changes(merged) })
  }

  /// Warnings for signs that the merge is not what was meant.
  package func doubts(_ adapters: [Adapter], _ model: StoredModel) throws(Failure) -> [Warning] {
    let names = try BaseNames(model)
    var doubts: [Warning] = []
    for adapter in adapters {
      if let doubt = names.warning(for: adapter, trainedAs: trainedAs) { doubts.append(Warning(doubt)) }
      if let doubt = try adapter.zeroWarning() { doubts.append(Warning(doubt)) }
    }
    return doubts
  }

  package func check(_ model: StoredModel) throws(Failure) {
    let path = model.checkpoint.path
    if model.isAdapter {
      throw Failure(.malformed, "is an adapter; the first path is that of the model that it was trained on", file: path)
    }
    switch model.quantizationMethod {
    case .none:
      if let method = model.checkpoint.dequantizes { try refuseAsTrained("quantized (\(method))", path) }
    case .fourBit: try refuseAsTrained("in 4 bits", path)
    case .other(let method):
      throw Failure(
        .unsupported,
        "is quantized (\(method)); merge into the original 16-bit checkpoint, or one in 4 bits "
          + "(bitsandbytes)", file: path)
    }
    if scheme != nil || ggufScheme != nil || quantizesExperts, type != nil {
      throw Failure(.usage, "options '--scheme' and '--dtype' exclude each other")
    }
  }

  private func refuseAsTrained(_ kind: String, _ path: String) throws(Failure) {
    if trainedAs == nil { return }
    throw Failure(
      .usage,
      "option '--base-as-trained' is for a 16-bit base; this one is \(kind), and adapters are merged "
        + "onto the weights that it stands for in any case", file: path)
  }

  package func config(
    of model: StoredModel, _ base: MergeBase, _ merged: MergePlan, _ target: FloatType?
  ) -> JSONValue? {
    guard var config = model.config else { return nil }
    if model.quantizationMethod == .fourBit, scheme == nil { config["quantization_config"] = nil }
    if let target {
      let keys = ["dtype", "torch_dtype"].filter { config[$0] != nil }
      for key in keys.isEmpty ? ["dtype"] : keys { config[key] = .string(target.torchName) }
    }
    if let size = merged.vocabularySize {
      let isThere = config.edit("vocab_size") { _ in .number(size) }
      if !isThere { config["vocab_size"] = .number(size) }
    }
    if let layers = merged.replicatedLayers {
      for key in ["num_hidden_layers", "n_layer", "n_layers", "num_layers"] {
        config.edit(key) { _ in .number(layers.count) }
      }
      // What kind each layer is, told one by one.
      config.edit("layer_types") { old in
        let types = old.array ?? []
        return layers.allSatisfy(types.indices.contains) ? .array(layers.map { types[$0] }) : old
      }
    }
    if !merged.staysTied, base.model.tiesEmbeddings {
      config.edit("tie_word_embeddings") { _ in false }
      config["tie_word_embeddings"] = false
    }
    if let classifier = merged.classifier { classifier.apply(to: &config) }
    return config
  }

  private var schemeName: String? {
    scheme?.rawValue ?? ggufScheme?.rawValue ?? (quantizesExperts ? QuantizeToMXFP4.scheme : nil)
  }

  package func recorded(_ provenance: MergeProvenance) -> [(key: String, value: JSONValue)] {
    var options: [(key: String, value: JSONValue)] = [
      ("adapters", provenance.json), ("combine", .string(settings.combination.rawValue)),
      ("rounding", .string(settings.rounding.rawValue)), ("dtype", .string(type.choice)),
      ("scheme", schemeName.map(JSONValue.string) ?? .null),
      ("baseAsTrained", trainedAs.map { .string($0.rawValue) } ?? .null),
      ("expertLayout", .string(settings.expertLayout.rawValue)), ("maxShardSize", .number(run.maxShardBytes)),
    ]
    if let scaleSearch { options.append(("scaleSearch", .string(scaleSearch.rawValue))) }
    if settings.combination != .sum {
      options.append(("density", JSONNumber(settings.density).map(JSONValue.number) ?? .null))
      options.append(("seed", .number(settings.seed)))
    }
    return options
  }
}

extension JSONValue {
  /// Changes a setting wherever a configuration has it: at the top, or in that of its language model.
  ///
  /// - Returns: whether it has it.
  @discardableResult
  fileprivate mutating func edit(_ key: String, _ change: (JSONValue) -> JSONValue) -> Bool {
    var isThere = false
    for part in ["text_config", "llm_config", "language_config", "decoder"] {
      guard let old = self[part]?[key] else { continue }
      self[part]?[key] = change(old)
      isThere = true
    }
    guard let old = self[key] else { return isThere }
    self[key] = change(old)
    return true
  }
}
