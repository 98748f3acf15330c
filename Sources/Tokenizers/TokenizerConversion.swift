import Bytes
import GGUF
import JSON

/// One run from the files of a directory to metadata.
struct TokenizerConversion {
  let modelType: String
  let family: TokenizerFamily
  let files: TokenizerFiles
  let config: JSONValue
  let size: Int?
  var output = GGUFTokenizer()

  init(_ modelType: String, _ family: TokenizerFamily, _ files: TokenizerFiles, _ config: JSONValue, _ size: Int?) {
    self.modelType = modelType
    self.family = family
    self.files = files
    self.config = config
    self.size = size
  }

  mutating func run() throws(Failure) -> GGUFTokenizer {
    if family == .llama, let value = files.configuration?["add_prefix_space"]?.bool {
      output.set(ggml: "add_space_prefix", .bool(value))
    }
    if try writeVocabulary() { try finishSentencePiece() }
    if family == .llama {
      if size == 32016 { try writeCodeLlama() }
      // Granite's small models begin no text with a token, whatever their files say.
      if size == 49152 { output.set(ggml: "add_bos_token", .bool(false)) }
    }
    return output
  }

  /// True when it is one of SentencePiece.
  private mutating func writeVocabulary() throws(Failure) -> Bool {
    if family == .phi3, files.configuration?["tokenizer_class"]?.string == "GPT2Tokenizer" {
      try writeByteLevel()
      return false
    }
    if let bytes = files.sentencePiece {
      try write(sentencePiece: SentencePieceModel(parsing: bytes))
      return true
    }
    guard let file = files.tokenizer else {
      if files.hasTekken {
        throw Failure(
          .unsupported, "there is tekken.json and no tokenizer.json, which transformers' tokenizers are read from")
      }
      throw Failure(.missing, "there is neither tokenizer.json nor tokenizer.model")
    }
    if family.usesSentencePiece, file.options["byte_fallback"]?.bool == true, !file.merges.isEmpty {
      try write(byteFallback: file)
      return true
    }
    try writeByteLevel()
    return false
  }

  private mutating func finishSentencePiece() throws(Failure) {
    switch family {
    case .gemma:
      // CodeGemma's numbers; the converter gives them to every first Gemma.
      var special = try SpecialTokens(files, config, types: ["prefix", "suffix", "middle", "fsep", "eot"])
      try special.set("eot", 107)
      special.dropChatTemplates()
      write(special)
      output.set(ggml: "add_space_prefix", .bool(false))
    case .gemma2: output.set(ggml: "add_space_prefix", .bool(false))
    default: break
    }
  }

  private mutating func writeCodeLlama() throws(Failure) {
    var special = try SpecialTokens(files, config, types: ["prefix", "suffix", "middle", "eot"])
    try special.set("eot", 32010)
    write(special)
  }

  // MARK: - Parts

  mutating func write(_ table: TokenTable, model: String, pre: String, scores: Bool) {
    output.set(ggml: "model", .text(model))
    output.set(ggml: "pre", .text(pre))
    output.set(ggml: "tokens", table.encodedTokens().value)
    if scores { output.set(ggml: "scores", .float32s(table.scores)) }
    output.set(ggml: "token_type", .int32s(table.types.map(\.rawValue)))
  }

  mutating func write(_ special: SpecialTokens) {
    for warning in special.warnings { output.warn(warning) }
    for (type, id) in special.ids {
      guard let key = Self.idKeys[type] else { continue }
      output.set(ggml: key, .uint32(UInt32(truncatingIfNeeded: id)))
    }
    for (type, value) in special.additions where ["bos", "eos", "sep"].contains(type) {
      output.set(ggml: "add_\(type)_token", .bool(value))
    }
    if let templates = special.chatTemplates { output.set(templates) }
    if let value = special.lowercases { output.set(ggml: "normalizer.lowercase", .bool(value)) }
    if let value = special.stripsAccents { output.set(ggml: "normalizer.strip_accents", .bool(value)) }
  }

  static let idKeys = [
    "bos": "bos_token_id", "eos": "eos_token_id", "unk": "unknown_token_id", "sep": "seperator_token_id",
    "pad": "padding_token_id", "mask": "mask_token_id", "eot": "eot_token_id", "eom": "eom_token_id",
  ]
}
