public import Bytes
public import GGUF
import JSON
import ModelFamilies

/// The chat templates alone, where they can be files: the tokenizer's settings would make a tokenizer of them.
public func huggingFaceChatTemplates(
  _ metadata: GGUFMetadata
) throws(Failure) -> [(name: String, contents: [UInt8])] {
  try ChatTemplates(metadata).files ?? []
}

/// The files of a Hugging Face directory for the tokenizer of a GGUF file.
///
/// transformers reads each text as llama.cpp reads it with that file. What GGUF does not say stays unsaid: which
/// added tokens take the spaces beside them, and how characters are composed before anything else.
///
/// - Returns: `tokenizer.json`, `tokenizer.model` where the vocabulary is one of SentencePiece,
///   `tokenizer_config.json`, `special_tokens_map.json`, `generation_config.json`, and the chat templates.
/// - Throws: `malformed` for metadata that contradicts itself, `missing` where the vocabulary is absent,
///   `unsupported` for a kind of tokenizer or a way of cutting words that transformers' files cannot say here.
public func huggingFaceTokenizer(
  _ metadata: GGUFMetadata
) throws(Failure) -> (files: [(name: String, contents: [UInt8])], warnings: [Warning]) {
  let vocabulary = try StoredVocabulary(metadata)
  let model = try metadata.text("tokenizer.ggml.model") ?? ""
  let templates = try ChatTemplates(metadata)
  var files: [(name: String, contents: [UInt8])] = []
  var configuration: JSONValue
  switch model {
  case "llama":
    let pieces = try SentencePieceFiles(vocabulary, metadata)
    files.append((TokenizerFile.file, pieces.tokenizer()))
    files.append((SentencePieceModel.file, pieces.model()))
    configuration = pieces.configuration
  case "gpt2":
    let bytes = try ByteLevelFiles(vocabulary, metadata)
    files.append((TokenizerFile.file, bytes.tokenizer()))
    configuration = bytes.configuration
  default:
    throw Failure(
      .unsupported,
      "metadata 'tokenizer.ggml.model' is '\(model.printable(limit: 128))', allowed are 'llama' and 'gpt2'")
  }
  let templateFiles = templates.files
  if templateFiles == nil { configuration[ChatTemplateFiles.key] = templates.list }
  files.append((TokenizerFiles.configurationFile, configuration.bytes(.indented)))
  var map = JSONObject()
  for (key, token) in vocabulary.namedTokens { map[key] = .string(token) }
  files.append((TokenizerFiles.specialTokensFile, JSONValue.object(map).bytes(.indented)))
  let generation = try vocabulary.generationConfiguration(metadata)
  files.append((SamplingMetadata.file, generation.bytes(.indented)))
  return (files + (templateFiles ?? []), templates.warnings)
}
