import Adapters
import Bytes
import Checkpoints
import GGUF
import JSON
import ModelFamilies
import Quantization
import Tensors

/// A LoRA adapter of llama.cpp, read as the one of PEFT that it was made from.
struct GGUFAdapter {
  let adapter: Adapter
  /// `adapter_config.json`.
  let configuration: JSONValue
  let source: PlannedSource

  static let endingA = ".lora_a"
  static let endingB = ".lora_b"

  /// - Throws: `unsupported` for what is no LoRA adapter, `malformed` for one that is not of this base.
  init(path: String, base: AdapterBase) throws(Failure) {
    let values = try StoredGGUF(path: path)
    do throws(Failure) { try self.init(values, path, base) } catch { throw error.located(file: path) }
  }

  private init(_ values: StoredGGUF, _ path: String, _ base: AdapterBase) throws(Failure) {
    let alpha = try Self.alpha(values.checkpoint.metadata, base)
    let (weights, ranks) = try Self.plan(values, base)
    source = try PlannedSource(values, weights)
    configuration = Self.configuration(alpha: alpha, ranks: ranks, base)
    var files: [InputFile] = []
    for index in values.checkpoint.files.indices { files.append(try values.checkpoint.open(index)) }
    adapter = try Adapter(
      path: path,
      configuration: AdapterConfiguration(parsing: configuration.bytes(.compact), file: path),
      source: source, files: files, warnings: values.warnings)
  }

  /// The α of a LoRA adapter for models like the base.
  private static func alpha(_ metadata: GGUFMetadata, _ base: AdapterBase) throws(Failure) -> Double {
    let type = try metadata.text("general.type") ?? "model"
    guard type == "adapter" else {
      throw Failure(
        .malformed, "is a GGUF file of type '\(type.printable(limit: 64))', expected an adapter (general.type)")
    }
    let kind = try metadata.text("adapter.type") ?? ""
    guard kind == "lora" else {
      throw Failure(.unsupported, "is an adapter of type '\(kind.printable(limit: 64))', only 'lora' is merged")
    }
    let architecture = try metadata.text("general.architecture") ?? ""
    guard architecture == base.family.architecture else {
      throw Failure(
        .malformed,
        "is an adapter for '\(architecture.printable(limit: 64))', the base is '\(base.family.architecture)'")
    }
    guard metadata["adapter.alora.invocation_tokens"] == nil else {
      throw Failure(
        .unsupported, "is an activated LoRA: it acts only behind its invocation tokens, which no merged model can do")
    }
    guard let alpha = try metadata.number("adapter.lora.alpha"), alpha.isFinite, alpha >= 0 else {
      throw Failure(.malformed, "metadata 'adapter.lora.alpha' is not a number from 0 up")
    }
    return alpha
  }

  /// The factors under the names of PEFT, and the rank of each module.
  private static func plan(
    _ values: StoredGGUF, _ base: AdapterBase
  ) throws(Failure) -> (weights: [PlannedWeight], ranks: [(module: String, rank: Int)]) {
    var places: [TensorName: Int] = [:]
    for (index, entry) in base.weights.enumerated() { places[entry.weight.name] = index }
    var weights: [PlannedWeight] = []
    var ranks: [(module: String, rank: Int)] = []
    for (index, info) in values.tensors.enumerated() {
      let isA = info.name.hasSuffix(endingA)
      guard let stem = info.name.dropping(suffix: isA ? endingA : endingB) else {
        throw Failure(
          .unsupported, "is neither a lora_a nor a lora_b, and llama.cpp passes it over", tensor: info.name.string)
      }
      guard let place = places[stem] else {
        throw Failure(.malformed, "adapts '\(stem.string)', which the base does not have", tensor: info.name.string)
      }
      let (weight, tensors) = base.weights[place]
      let parts = try plan(index, info, isA: isA, of: weight, experts: tensors.count)
      for (part, tensor) in zip(parts, tensors) {
        guard let module = base.module(of: tensor) else {
          throw Failure(.malformed, "adapts '\(stem.string)', which is no weight", tensor: info.name.string)
        }
        let ending = isA ? "A" : "B"
        let isEmbedding = stem.string == "token_embd.weight"
        let kind = isEmbedding ? "lora_embedding_\(ending)" : "lora_\(ending).weight"
        var part = part
        part.name = TensorName("base_model.model.\(module).\(kind)")
        if isA { ranks.append((module, part.shape[0])) }
        weights.append(part)
      }
    }
    return (weights, ranks)
  }

  /// One tensor of the adapter as the factors of the base's tensors that it adapts; their names are still missing.
  private static func plan(
    _ index: Int, _ info: TensorInfo, isA: Bool, of weight: PlannedWeight, experts: Int
  ) throws(Failure) -> [PlannedWeight] {
    func unfit(_ expected: String) -> Failure {
      Failure(.malformed, "has shape \(info.shape), expected \(expected)", tensor: info.name.string)
    }
    func planned(
      _ shape: [Int], _ source: PlannedWeight.Source, _ transform: WeightTransform = .none
    ) -> PlannedWeight { PlannedWeight(name: info.name, shape: shape, source: source, transform: transform) }
    if case .stacked = weight.source {
      guard info.shape.count == 3, info.shape[0] == experts, info.elementCount > 0 else {
        throw unfit("a stack of \(experts) experts")
      }
      return (0..<experts).map { planned(Array(info.shape.dropFirst()), .part(of: index, index: $0)) }
    }
    guard case .stored = weight.source, info.shape.count == 2, info.elementCount > 0 else {
      if weight.shape.count == 3 {
        throw Failure(
          .unsupported, "adapts experts whose gates and values the base stores as one; merge it into a GGUF base",
          tensor: info.name.string)
      }
      throw unfit("a matrix")
    }
    if weight.name.string == "token_embd.weight", isA {
      return [planned(info.shape.reversed(), .stored(index), .transpose)]
    }
    guard !isA, case .permuteHeads(let heads) = weight.transform else { return [planned(info.shape, .stored(index))] }
    guard info.shape[0] == weight.shape[0] else { throw unfit("\(weight.shape[0]) rows") }
    return [planned(info.shape, .stored(index), .unpermuteHeads(heads))]
  }

  /// `adapter_config.json`.
  private static func configuration(
    alpha: Double, ranks: [(module: String, rank: Int)], _ base: AdapterBase
  ) -> JSONValue {
    let paths = Set(ranks.map(\.module))
    let names = ModuleNames(parameters: base.merge.model.entries.map(\.parameter))
    let targets = names.entries(for: paths, .component).map(ExtractedConfiguration.Targets.list)
    let rank = ranks.first?.rank ?? 1
    var result = ExtractedConfiguration(
      rank: rank, base: base.path, targets: targets ?? .pattern(ExtractedConfiguration.pattern(of: paths)))
    // To llama.cpp an α of zero is a scale of one.
    if alpha != 0 { result.alpha = JSONNumber(alpha).map(JSONValue.number) ?? .null }
    for (module, own) in ranks where own != rank {
      let pattern = ExtractedConfiguration.pattern(of: [module])
      result.ranks[pattern] = .number(own)
      if alpha == 0 { result.alphas[pattern] = .number(own) }
    }
    result.taskType = "CAUSAL_LM"
    return result.json
  }
}
