public import Bytes
public import GGUF
public import JSON
public import Tensors

/// A GGUF file as a Hugging Face model becomes it, but for the tokenizer, the file type and the data.
public struct GGUFModelPlan: Sendable {
  public var family: Family
  /// `general.*`, then the keys of the architecture, without `general.file_type`, `general.quantization_version` and
  /// `tokenizer.*`.
  public var metadata: [(key: String, value: GGUFValue)]
  /// How many pairs of `metadata` precede `general.file_type`.
  public var fileTypePosition: Int
  /// Computed tensors first, then in the order of the tensors passed in, where the experts of a layer stand for the
  /// last of them.
  public var weights: [PlannedWeight]
  public var warnings: [Warning]
}

/// Plans the conversion of a Hugging Face model to GGUF, as llama.cpp's `convert_hf_to_gguf.py` does it.
///
/// - Parameters:
///   - config: `config.json`.
///   - tensors: all of the checkpoint's. That converter's order is file after file, by name within a file.
///   - directoryName: the last component of the model's path, which the model's name is guessed from.
///   - sideFile: the content of a file of the model's directory, nil when it is not there.
/// - Throws: `unsupported` for a class that has no GGUF form, for the tensors of vision and audio parts, and for what
///   GGUF cannot say; `malformed` for a tensor that no rule reads, one that is missing, shapes that disagree with the
///   configuration, and values out of range.
public func planGGUF(
  config: JSONValue, tensors: [TensorInfo], directoryName: String,
  sideFile: (String) throws(Failure) -> [UInt8]?
) throws(Failure) -> GGUFModelPlan {
  let family = try Family.of(config)
  let parameters = try ModelParameters(config, family: family)
  let sizes = try ModelSizes(parameters, family)
  let rope = try RopeParameters(parameters, family.rope)
  var warnings: [Warning] = []
  let planner = try WeightPlanner(
    family: family, className: try Family.className(config), isMultimodal: family.isMultimodal(config),
    parameters: parameters, sizes: sizes)
  // The tensors first: they hold the configuration to what there is.
  let stored = try planner.plan(tensors, warnings: &warnings)
  let weights = try rope.factorWeights(family.rope, parameters, sizes) + stored

  var metadata = PlannedMetadata()
  metadata.set("general.architecture", .text(family.architecture))
  let model = ParameterRule.Model(parameters: parameters, sizes: sizes, rope: rope, family: family)
  metadata.prefix = family.architecture + "."
  for rule in family.firstParameters { try rule.write(model, to: &metadata, warnings: &warnings) }
  metadata.prefix = ""
  metadata.set("general.type", .text("model"))
  let general = try GeneralMetadata(
    config: config, directoryName: directoryName, counts: try ParameterCounts(weights), sideFile: sideFile,
    warnings: &warnings)
  try general.write(to: &metadata)
  metadata.prefix = family.architecture + "."
  for rule in family.parameters { try rule.write(model, to: &metadata, warnings: &warnings) }
  warnings += try parameters.unexpected(family.constants)
  return GGUFModelPlan(
    family: family, metadata: metadata.pairs, fileTypePosition: metadata.fileTypePosition, weights: weights,
    warnings: warnings)
}

extension RopeParameters {
  /// The tensors of factors that a scaling needs.
  fileprivate func factorWeights(
    _ form: RopeForm, _ parameters: ModelParameters, _ sizes: ModelSizes
  ) throws(Failure) -> [PlannedWeight] {
    var factors: [(name: String, values: [Float])] = []
    switch form {
    case .frequencyFactors where type == "llama3":
      factors = [("rope_freqs.weight", try RopeFactors.llama3(self, headLength: sizes.headLength))]
    case .longFactors:
      factors = try longAndShortFactors(parameters, sizes)
    default: break
    }
    return factors.map { name, values in
      PlannedWeight(name: TensorName(name), shape: [values.count], source: .values(values), isAlwaysF32: true)
    }
  }
}
