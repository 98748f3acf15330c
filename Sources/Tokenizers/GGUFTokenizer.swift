public import Bytes
public import GGUF
public import JSON

/// The `tokenizer.*` metadata of a GGUF file.
public struct GGUFTokenizer: Sendable {
  /// The metadata in the order in which llama.cpp's converter writes them.
  public private(set) var pairs: [(key: String, value: GGUFValue)] = []
  /// Findings that the result does not express, one sentence each.
  public var warnings: [Warning] { Warning.grouped(found) }
  private var found: [Warning] = []

  package static let prefix = "tokenizer.ggml."

  /// A key that is there already keeps its place.
  package mutating func set(_ key: String, _ value: GGUFValue) {
    if let position = pairs.firstIndex(where: { $0.key == key }) {
      pairs[position].value = value
    } else {
      pairs.append((key, value))
    }
  }

  package mutating func set(ggml key: String, _ value: GGUFValue) { set(Self.prefix + key, value) }

  package mutating func warn(_ warning: Warning) { found.append(warning) }

  package mutating func set(_ templates: ChatTemplates) {
    var templates = templates
    // A second time they are the same; and there may be too many to look for each among the others.
    let known = Set(pairs.map(\.key))
    pairs += templates.pairs().filter { !known.contains($0.key) }
    for warning in templates.warnings { warn(warning) }
  }
}

/// The tokenizer of a Hugging Face directory as a GGUF file says it, as `convert_hf_to_gguf.py` writes it.
///
/// - Parameters:
///   - modelType: `model_type` of `config.json`.
///   - config: `config.json`.
///   - fileNames: of the directory, folders included, as they were found by listing.
///   - sideFile: the contents of a file of the directory, by its name; nil when there is none.
/// - Throws: `malformed` for files that contradict themselves or one another, `missing` where the tokenizer's file
///   is absent, `unsupported` for a family or a kind of tokenizer that has no counterpart in GGUF.
public func ggufTokenizer(
  modelType: String, config: JSONValue, fileNames: [String], sideFile: (String) throws(Failure) -> [UInt8]?
) throws(Failure) -> GGUFTokenizer {
  guard let family = TokenizerFamily(modelType: modelType) else {
    throw Failure(
      .unsupported, "model type '\(modelType.printable(limit: 128))' has no tokenizer in GGUF that is known here")
  }
  let files = try TokenizerFiles(usesSentencePiece: family.usesSentencePiece, names: fileNames, sideFile)
  let size = try VocabularySize.read(config, modelType: modelType)
  var conversion = TokenizerConversion(modelType, family, files, config, size)
  return try conversion.run()
}
