/// The members of `config.json` that decide which weights are linear layers.
public struct ModelConfiguration: Sendable {
  /// `architectures[0]`: the class that wrote the checkpoint and will load it.
  public var architecture: String?
  public var modelType: String?
  /// `tie_word_embeddings`; nil when the file does not say, then the class's own default holds.
  public var tiesWordEmbeddings: Bool?
  /// The same of the language model in a model made of several (`text_config`, `decoder` …); it counts only where
  /// `tiesWordEmbeddings` is nil.
  public var textTiesWordEmbeddings: Bool?

  public init(
    architecture: String? = nil, modelType: String? = nil, tiesWordEmbeddings: Bool? = nil,
    textTiesWordEmbeddings: Bool? = nil
  ) {
    self.architecture = architecture
    self.modelType = modelType
    self.tiesWordEmbeddings = tiesWordEmbeddings
    self.textTiesWordEmbeddings = textTiesWordEmbeddings
  }

  /// Whether there is a rule for the class.
  public var isKnownClass: Bool { architecture.flatMap { ClassRule(architecture: $0) } != nil }

  /// Whether the output embedding is the input's, by what is stated or by the class's default; nil when the class is not
  /// known.
  public var tiesEmbeddings: Bool? {
    tiesWordEmbeddings ?? textTiesWordEmbeddings
      ?? architecture.flatMap { ClassRule(architecture: $0) }.map(\.tiesByDefault)
  }
}
