public import Bytes
public import JSON

/// One model family: everything that differs between its Hugging Face form and its GGUF form, as data for both
/// directions.
public struct Family: Sendable {
  /// transformers' `model_type`.
  public let name: String
  /// The classes (`architectures`) that are converted.
  public let classes: [String]
  /// Classes without an output head, whose tensors lack the first component of the others' names.
  let headlessClasses: [String]
  /// Classes whose text model is converted and whose other parts are left out.
  let multimodalClasses: [String]
  /// GGUF's `general.architecture`.
  public let architecture: String
  /// `model_type` of the text model where it is not `name`.
  package let textModelType: String?
  /// The defaults of transformers for keys that `config.json` does not have.
  package let defaults: KeyValuePairs<String, Constant>
  /// This family's own word for a common key.
  package let spellings: KeyValuePairs<String, String>
  /// Keys of `config.json` that GGUF does not hold: its readers take these values for the whole family.
  let constants: KeyValuePairs<String, Constant>
  /// The MLP's width in hidden sizes, where `config.json` may leave it out.
  package let feedForwardFactor: Int?
  /// Written in front of everything but `general.architecture`.
  let firstParameters: [ParameterRule]
  package let parameters: [ParameterRule]
  package let tensors: [TensorRule]
  /// Ends of the names of tensors that are not weights, or are not read by anybody.
  package let ignoredSuffixes: [String]
  /// Flags of `config.json`, and the GGUF names of the biases that are there in every layer when one is true.
  let biasFlags: KeyValuePairs<String, [String]>
  package let rope: RopeForm

  package init(
    _ name: String, architecture: String, classes: [String], headlessClasses: [String] = [],
    multimodalClasses: [String] = [], textModelType: String? = nil, defaults: KeyValuePairs<String, Constant>,
    spellings: KeyValuePairs<String, String> = [:], constants: KeyValuePairs<String, Constant> = [:],
    feedForwardFactor: Int? = nil, rope: RopeForm = .standard, firstParameters: [ParameterRule] = [],
    parameters: [[ParameterRule]], tensors: [[TensorRule]], biasFlags: KeyValuePairs<String, [String]> = [:],
    ignoredSuffixes: [String] = []
  ) {
    self.name = name
    self.architecture = architecture
    self.classes = classes
    self.headlessClasses = headlessClasses
    self.multimodalClasses = multimodalClasses
    self.textModelType = textModelType
    self.defaults = defaults
    self.spellings = spellings
    self.constants = constants
    self.feedForwardFactor = feedForwardFactor
    self.biasFlags = biasFlags
    self.rope = rope
    self.firstParameters = firstParameters
    self.parameters = parameters.flatMap { $0 }
    self.tensors = tensors.flatMap { $0 }
    self.ignoredSuffixes = ignoredSuffixes + [".attention.masked_bias", ".attention.bias", ".rotary_emb.inv_freq"]
  }
}

extension Family {
  /// The family of a configuration, by its class, or by its `model_type` where it names no class.
  ///
  /// - Throws: `unsupported`, naming what was found and what is known; `malformed` when the class is no string.
  public static func of(_ config: JSONValue) throws(Failure) -> Family {
    if let name = try className(config) {
      if let match = all.first(where: { ($0.classes + $0.headlessClasses + $0.multimodalClasses).contains(name) }) {
        return match
      }
      throw unknown("model class", name)
    }
    guard let name = config["model_type"]?.string else {
      throw Failure(.malformed, "has neither architectures nor model_type", file: ModelParameters.file)
    }
    guard let match = all.first(where: { $0.name == name || $0.textModelType == name }) else {
      throw unknown("model type", name)
    }
    return match
  }

  /// The class of the text model where a model made of several names one, else the model's own.
  package static func className(_ config: JSONValue) throws(Failure) -> String? {
    guard let classes = config["text_config"]?["architectures"] ?? config["architectures"], !classes.isNull else {
      return nil
    }
    guard let names = classes.array else {
      throw Failure(
        .malformed, "architectures: found \(classes.kind.rawValue), expected an array", file: ModelParameters.file)
    }
    guard let first = names.first else { return nil }
    guard let name = first.string else {
      throw Failure(
        .malformed, "architectures: found \(first.kind.rawValue), expected a string", file: ModelParameters.file)
    }
    return name
  }

  /// Whether a configuration is that of a model which has this family's as a part.
  func isMultimodal(_ config: JSONValue) -> Bool {
    !multimodalClasses.isEmpty && config["text_config"]?.object != nil
  }

  private static func unknown(_ what: String, _ name: String) -> Failure {
    let known = all.flatMap(\.classes).joined(separator: ", ")
    return Failure(
      .unsupported, "\(what) '\(name.printable(limit: 128))' has no GGUF conversion, these have: \(known)",
      file: ModelParameters.file)
  }
}
