import Architectures
import Bytes
import Checkpoints
import JSON
import Patterns
import Tensors
import Writing

/// The experts of a gpt-oss model: of each layer two stacks of matrices, [experts, inputs, outputs] in transformers,
/// which are stored in MXFP4.
struct GptOssExperts {
  /// Positions of the stacks that are quantized.
  let chosen: Set<Int>
  let warnings: [Warning]
  private let kept: Set<Int>
  /// Paths of the modules that stay as they are, sorted.
  private let keptModules: [String]

  private static let stacks = [".gate_up_proj", ".down_proj"]
  private static let module = "mlp.experts"

  /// What gpt-oss's own config.json says, beside which nothing is quantized but experts.
  private static let neverConverted = [
    "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head",
  ]

  /// - Parameters:
  ///   - keep: modules that stay as they are.
  ///   - staying: positions of tensors that stay as they are.
  init(_ tensors: [TensorInfo], keep: [Keep] = [], staying: Set<Int> = []) {
    let globs = keep.compactMap { if case .glob(let glob) = $0 { glob } else { nil } }
    var (chosen, kept): (Set<Int>, Set<Int>) = ([], [])
    var modules: Set<String> = []
    var unused = Set(globs.map(\.text))
    for (index, info) in tensors.enumerated() {
      guard let module = Self.module(of: info) else { continue }
      let matching = globs.filter { $0.matches(module) }
      if matching.isEmpty, !staying.contains(index) {
        chosen.insert(index)
      } else {
        kept.insert(index)
        modules.insert(module)
        unused.subtract(matching.map(\.text))
      }
    }
    self.chosen = chosen
    self.kept = kept
    keptModules = modules.sorted { Array($0.utf8).lexicographicallyPrecedes(Array($1.utf8)) }
    var warnings: [Warning] = globs.filter { unused.contains($0.text) }.map {
      "--keep '\($0.text)' matches no experts, which are the modules model.layers.N.mlp.experts"
    }
    if chosen.isEmpty { warnings.append("no tensor is quantized: there are no experts' stacks among them") }
    self.warnings = warnings
  }

  /// - Throws: `unsupported` for a model that is none of gpt-oss's.
  static func check(_ model: StoredModel) throws(Failure) {
    guard model.config != nil else {
      throw Failure(
        .unsupported, "has no config.json, which has to say that it is a gpt-oss model", file: model.checkpoint.path)
    }
    let (type, architecture) = (model.configuration.modelType, model.configuration.architecture)
    guard type != "gpt_oss" else { return }
    let name = architecture.map { "of class '\($0)'" } ?? "of type '\(type ?? "")'"
    throw Failure(
      .unsupported,
      "is \(name), and no gpt-oss model, whose experts \(QuantizeToMXFP4.scheme) is for; "
        + "\(CompressedScheme.mxfp4a16.rawValue) is MXFP4 for other models", file: model.checkpoint.path)
  }

  /// - Parameter areComputed: whether the source computes the stacks' values, row by row.
  /// - Returns: one to copy, and one to quantize.
  static func encoders(fate: String, areComputed: Bool) -> [any TensorEncoder] {
    [CopyEncoder(fate: fate), ExpertEncoder(takesMatrices: areComputed)]
  }

  /// `model.layers.0.mlp.experts`, of a stack's name; nil for other tensors.
  private static func module(of info: TensorInfo) -> String? {
    for stack in stacks {
      guard let module = info.name.dropping(suffix: stack)?.string else { continue }
      return module.hasSuffix(".\(Self.module)") ? module : nil
    }
    return nil
  }

  /// `quantization_config` of config.json.
  var configuration: JSONValue {
    [
      "modules_to_not_convert": .array((Self.neverConverted + keptModules).map(JSONValue.string)),
      "quant_method": "mxfp4",
    ]
  }

  func summary(_ plan: WritePlan) -> QuantizationSummary {
    QuantizationSummary(plan) { step in
      let info = plan.info(of: step)
      if kept.contains(step.tensor) { return .init(.userKept, info) }
      // Biases of experts are a row for each.
      return info.shape.count < 2 || info.name.string.hasSuffix("_bias")
        ? .init("norm or bias", "norms and biases") : .init("matrix of no expert", "matrices of no expert")
    }
  }
}
