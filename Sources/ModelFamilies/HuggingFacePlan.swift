public import Bytes
public import GGUF
public import JSON

/// A Hugging Face model as a GGUF file becomes it, but for the tokenizer, the type of the values and the data.
public struct HuggingFaceModelPlan: Sendable {
  public var family: Family
  /// `config.json`, complete but for `dtype`: transformers 4 and 5 load it.
  public var config: JSONValue
  /// The weights in the order of the tensors passed in, a stack of experts as its parts.
  public var weights: [PlannedWeight]
  public var warnings: [Warning]
}

/// Plans the conversion of a GGUF model back to the Hugging Face model that it was made from.
///
/// - Parameters:
///   - metadata: of the file, or of the first of a split model.
///   - tensors: all of the model's.
///   - values: the values of a tensor, by position. Asked only for the few factors that stretch rotary positions, which
///     `config.json` states as numbers.
/// - Throws: `unsupported` for an architecture that is not known, for a file that is no model (a projector, an adapter),
///   for a tensor that the architecture's models do not have, and for what `config.json` cannot say; `malformed` for
///   missing keys and tensors, values out of range, and shapes that disagree with the metadata.
public func planHuggingFace(
  metadata: GGUFMetadata, tensors: [GGUFTensor], values: (Int) throws(Failure) -> [Float]
) throws(Failure) -> HuggingFaceModelPlan {
  let family = try Family.of(metadata)
  var reader = ConfigReader(metadata: metadata, family: family, tensors: tensors)
  for rule in family.firstParameters + family.parameters { try rule.read(&reader) }
  try reader.readTensorFlags()
  try reader.readFactors(values)
  let sizes = try ModelSizes(ModelParameters(reader.object), family)
  try reader.check(sizes)
  let planner = ReverseWeightPlanner(family: family, sizes: sizes)
  let weights = try planner.plan(tensors)
  return HuggingFaceModelPlan(
    family: family, config: try reader.config(), weights: weights, warnings: reader.warnings)
}

extension Family {
  /// The first family whose architecture a file states, and which has experts where the file does.
  ///
  /// - Throws: `malformed` when it states none, `unsupported` for one that is not known and for what is no model.
  public static func of(_ metadata: GGUFMetadata) throws(Failure) -> Family {
    if let type = try metadata.text("general.type"), type != "model" {
      throw Failure(.unsupported, "general.type is '\(type.printable(limit: 64))', only a 'model' is converted")
    }
    guard let architecture = try metadata.text("general.architecture") else {
      throw Failure(.malformed, "metadata 'general.architecture' is missing")
    }
    let experts = try metadata.integer(architecture + ".expert_count") ?? 0
    let known = all.filter { $0.architecture == architecture }
    guard let match = known.first(where: { $0.hasExperts == (experts > 0) }) ?? known.last else {
      let names = Set(all.map(\.architecture)).sorted().joined(separator: ", ")
      throw Failure(
        .unsupported,
        "architecture '\(architecture.printable(limit: 64))' has no Hugging Face form, these have: \(names)")
    }
    return match
  }

  private var hasExperts: Bool { tensors.contains(where: \.isPerExpert) }
}
