public import Bytes
public import JSON
import ModelFamilies

/// A decoder as its class builds it: every parameter, and what autograd saves of every layer.
///
/// Held to transformers 5.23, PEFT and torch 2.13 on the CPU, with `attn_implementation` as they choose it.
public struct TrainedDecoder: Sendable {
  /// The family's usual name.
  public let family: String
  /// The class with the output embedding.
  public let architecture: String
  public let vocabulary: Int
  public let hidden: Int
  /// Tokens that the model was made for; nil where the configuration does not say.
  public let positions: Int?
  public let tiesEmbeddings: Bool
  public internal(set) var parameters: [TrainedParameter] = []
  /// The tensors saved for each layer.
  public internal(set) var layers: [[SavedTensor]] = []
  /// For each layer the first that is built alike: often all are.
  public internal(set) var likeLayers: [Int] = []
  /// The tensors saved outside of the layers: embeddings, last norm, logits, loss.
  public internal(set) var head: [SavedTensor] = []
  /// Names of tensors that checkpoints have and training does not: ends.
  public let ignoredSuffixes: [String]
  /// Warnings that the reader of the figures should know. One line each, no full stop.
  public internal(set) var warnings: [Warning] = []

  /// Every layer is planned one by one.
  package static let layerLimit = 4096

  /// - Throws: `unsupported` for a class that is not known; `malformed` for a size that is missing, no whole number,
  ///   out of range, or at odds with another.
  public init(_ config: JSONValue) throws(Failure) {
    let family = try TrainingFamily.of(config)
    let parameters = try ModelParameters(config, defaults: family.defaults, spellings: family.spellings)
    for key in family.stated where parameters[key] == nil { throw parameters.failure(key, "is missing") }
    guard try parameters.optionalSize("num_hidden_layers", limit: Self.layerLimit) != nil else {
      throw parameters.failure("num_hidden_layers", "is missing")
    }
    let sizes = try ModelSizes(
      parameters, feedForwardFactor: family.feedForwardFactor, vocabularyLimit: .max)
    try self.init(family, parameters)
    var builder = DecoderBuilder(family: family, config: parameters, sizes: sizes, decoder: self)
    try builder.build()
    self = builder.decoder
  }

  private init(_ family: TrainingFamily, _ parameters: ModelParameters) throws(Failure) {
    self.family = family.name
    architecture = family.architecture
    vocabulary = try parameters.size("vocab_size", limit: .max)
    hidden = try parameters.size("hidden_size")
    positions = try parameters.optionalSize("max_position_embeddings")
    tiesEmbeddings = try parameters.bool("tie_word_embeddings") ?? true
    ignoredSuffixes = family.ignoredSuffixes
  }
}
