public import Bytes
public import GGUF
import JSON

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
) throws(Failure) -> [(name: String, contents: [UInt8])] {
  let vocabulary = try StoredVocabulary(metadata)
  let model = try metadata.text("tokenizer.ggml.model") ?? ""
  var files: [(name: String, contents: [UInt8])] = []
  switch model {
  case "llama":
    let pieces = try SentencePieceFiles(vocabulary, metadata)
    files.append((TokenizerFile.file, pieces.tokenizer()))
    files.append((SentencePieceModel.file, pieces.model()))
    files.append((TokenizerFiles.configurationFile, pieces.configuration.bytes(.indented)))
  case "gpt2":
    let bytes = try ByteLevelFiles(vocabulary, metadata)
    files.append((TokenizerFile.file, bytes.tokenizer()))
    files.append((TokenizerFiles.configurationFile, bytes.configuration.bytes(.indented)))
  default:
    throw Failure(
      .unsupported,
      "metadata 'tokenizer.ggml.model' is '\(model.printable(limit: 128))', allowed are 'llama' and 'gpt2'")
  }
  var map = JSONObject()
  for (key, token) in vocabulary.namedTokens { map[key] = .string(token) }
  files.append((TokenizerFiles.specialTokensFile, JSONValue.object(map).bytes(.indented)))
  let generation = try vocabulary.generationConfiguration(metadata)
  files.append((SamplingMetadata.file, generation.bytes(.indented)))
  return try files + chatTemplates(metadata)
}

private func chatTemplates(_ metadata: GGUFMetadata) throws(Failure) -> [(name: String, contents: [UInt8])] {
  let key = "tokenizer.chat_template"
  var files: [(name: String, contents: [UInt8])] = []
  if let text = try metadata.text(key) { files.append((ChatTemplate.file, Array(text.utf8))) }
  for pair in metadata.pairs where pair.key.hasBytes(prefix: key + ".") {
    let name = String(decoding: pair.key.utf8.dropFirst(key.utf8.count + 1), as: UTF8.self)
    // It becomes the name of a file.
    guard !name.isEmpty, name.utf8.count <= 64,
      name.unicodeScalars.allSatisfy({ $0 == "_" || ChatTemplate.isNameLetter($0) })
    else {
      throw Failure(.malformed, "metadata '\(pair.key.printable(limit: 256))': the template's name is not one")
    }
    guard let text = try metadata.text(pair.key) else { continue }
    files.append(("\(ChatTemplate.folder)/\(name).jinja", Array(text.utf8)))
  }
  return files
}
