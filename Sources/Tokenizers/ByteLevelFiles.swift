import Bytes
import GGUF
import JSON

/// Byte-level BPE of a GGUF file as the files of transformers.
struct ByteLevelFiles {
  private let vocabulary: StoredVocabulary
  private let pre: PreTokenizer
  private var merges = ByteStrings()
  private var splits: [Int] = []
  private let added: [AddedToken]
  let configuration: JSONValue

  init(_ vocabulary: StoredVocabulary, _ metadata: GGUFMetadata) throws(Failure) {
    self.vocabulary = vocabulary
    let name = try metadata.text("tokenizer.ggml.pre") ?? "default"
    guard let pre = PreTokenizer.named(name) else {
      throw Failure(
        .unsupported,
        "metadata 'tokenizer.ggml.pre' is '\(name.printable(limit: 128))', whose way of cutting words "
          + "is not known here")
    }
    self.pre = pre
    added = vocabulary.addedTokens()
    configuration = .object(try vocabulary.configuration(added, metadata))
    let key = "tokenizer.ggml.merges"
    guard let count = try metadata.array(key)?.count else { throw Failure(.missing, "metadata '\(key)' is absent") }
    guard count <= VocabularySize.limit else {
      throw Failure(
        .malformed, "metadata '\(key)' has \(count) merges, allowed are \(VocabularySize.limit) at most")
    }
    let stored = try metadata.byteStrings(key) ?? []
    for (position, merge) in stored.enumerated() {
      func rejected(_ what: String) -> Failure {
        let shown = String(decoding: merge, as: UTF8.self).printable(limit: 128)
        return Failure(.malformed, "merge \(position), '\(shown)', \(what)")
      }
      guard let space = merge.firstIndex(of: 0x20), !merge[(space + 1)...].contains(0x20) else {
        throw rejected("is not two tokens with a space between")
      }
      let joined = merge[..<space] + merge[(space + 1)...]
      for part in [merge[..<space], merge[(space + 1)...], joined]
      where vocabulary.index.position(of: Array(part)) == nil {
        throw rejected("needs a token that is not in the vocabulary")
      }
      merges.append(joined)
      splits.append(space)
    }
  }

  func tokenizer() -> [UInt8] {
    let bytes = PreTokenizer.Stage.byteLevel(usesExpression: true).json
    let begins = vocabulary.beginsText ?? pre.beginsText
    var processors = vocabulary.beginsText == nil && vocabulary.endsText == nil ? [] : [bytes]
    if let template = vocabulary.template(begins: begins, ends: vocabulary.endsText ?? false) {
      processors.append(template)
    }
    let processor: JSONValue =
      switch processors.count {
      case 0: .null
      case 1: processors[0]
      default: ["type": "Sequence", "processors": .array(processors)]
      }
    var text = TokenizerText(
      [
        ("normalizer", pre.composes ? ["type": "NFC"] : .null), ("pre_tokenizer", pre.json),
        ("post_processor", processor), ("decoder", bytes),
      ],
      added: added,
      options: [
        ("unk_token", .null), ("continuing_subword_prefix", .null), ("end_of_word_suffix", .null),
        ("fuse_unk", false), ("byte_fallback", false), ("ignore_merges", .bool(pre.ignoresMerges ?? false)),
      ])
    text.writeVocabulary(vocabulary)
    text.writeMerges(merges.count) { position in
      let merge = merges.slice(position)
      let middle = merge.startIndex + splits[position]
      return (merge[..<middle], merge[middle...])
    }
    return text.finished()
  }
}
