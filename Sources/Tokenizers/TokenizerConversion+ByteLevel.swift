import Bytes
import JSON

extension TokenizerConversion {
  /// The vocabulary and merges of byte-level BPE.
  mutating func writeByteLevel() throws(Failure) {
    guard let file = files.tokenizer else { throw Failure(.missing, "there is no \(TokenizerFile.file)") }
    try check(file)
    let pre = try PreTokenizer.recognized(file, modelType: modelType)
    let vocabulary = try Vocabulary(files, file)
    let count = size ?? vocabulary.count
    try vocabulary.check(count)
    var table = TokenTable(count: count)
    for (position, id) in file.ids.enumerated() { table.set(id, file.tokens[position], 0, .normal) }
    let cleansSpaces = files.configuration?["clean_up_tokenization_spaces"]?.bool ?? false
    for token in vocabulary.addedTokens {
      var text = token.content
      if !token.isNormalized {
        // llama.cpp looks for the text that the token stands for.
        text = ByteAlphabet.decoded(text)
        if cleansSpaces { text = Self.cleaned(text) }
      }
      let isControl = token.isSpecial || TokenTable.looksSpecial(text)
      table.set(
        token.id, isControl ? Array(text.utf8) : TokenTable.withSpaces(text), 0, isControl ? .control : .userDefined)
    }
    write(table, model: "gpt2", pre: pre.name, scores: false)
    if file.merges.isEmpty {
      throw Failure(.unsupported, "its vocabulary has no merges, without which llama.cpp loads no BPE", file: Self.file)
    }
    output.set(ggml: "merges", file.encodedMerges().value)
    write(try SpecialTokens(files, config))
  }

  private static var file: String { TokenizerFile.file }

  private func check(_ file: TokenizerFile) throws(Failure) {
    func refused(_ what: String) -> Failure {
      Failure(.unsupported, "\(what) has no counterpart in GGUF for model type '\(modelType)'", file: Self.file)
    }
    // A model without a type is known by what it has.
    let type = file.options["type"]?.string ?? (file.merges.isEmpty ? "no type" : "BPE")
    guard type == "BPE" else { throw refused("a model of type \(type.printable(limit: 64))") }
    for key in ["continuing_subword_prefix", "end_of_word_suffix"] {
      if let text = file.options[key]?.string, !text.isEmpty { throw refused("'\(key)'") }
    }
    if file.options["byte_fallback"]?.bool == true { throw refused("BPE with 'byte_fallback'") }
  }

  /// The text after transformers' clean-up of tokenization spaces.
  private static func cleaned(_ text: String) -> String {
    var bytes = Array(text.utf8)
    for (found, kept) in [
      (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"),
      (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
    ] {
      bytes.replace(Array(found.utf8), with: Array(kept.utf8))
    }
    return String(decoding: bytes, as: UTF8.self)
  }
}

extension TokenizerFile {
  /// The merges as GGUF has them: two tokens with a space between, a space within written as byte-level BPE writes it.
  func encodedMerges() -> EncodedStrings {
    var strings = EncodedStrings()
    for position in 0..<merges.count {
      let merged = merges.slice(position)
      let middle = merged.startIndex + splits[position]
      if merged.contains(0x20) {
        strings.append(Self.escaped(merged[..<middle]), Self.escaped(merged[middle...]))
      } else {
        strings.append(merged[..<middle], merged[middle...])
      }
    }
    return strings
  }

  private static func escaped(_ part: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
    part.replacing([0x20], with: Array("\u{120}".utf8))
  }
}
