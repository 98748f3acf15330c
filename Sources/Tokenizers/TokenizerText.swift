import JSON

/// The text of a `tokenizer.json`, whose vocabulary is written as it comes.
struct TokenizerText {
  private var json = JSONWriter()

  /// - Parameters:
  ///   - members: what stands before the model, in order.
  ///   - options: what the model says besides its vocabulary and merges.
  init(_ members: [(key: String, value: JSONValue)], added: [AddedToken], options: [(key: String, value: JSONValue)]) {
    json.beginObject(.compact)
    json.member("version", "1.0")
    json.member("truncation", .null)
    json.member("padding", .null)
    json.key("added_tokens")
    json.beginArray(.compact)
    for token in added {
      json.beginObject(.compact)
      json.member("id", token.id)
      for (key, value) in token.json.members { json.member(key, value) }
      json.end()
    }
    json.end()
    for (key, value) in members { json.member(key, value) }
    json.key("model")
    json.beginObject(.compact)
    json.member("type", "BPE")
    json.member("dropout", .null)
    for (key, value) in options { json.member(key, value) }
  }

  mutating func writeVocabulary(_ vocabulary: StoredVocabulary) {
    json.key("vocab")
    json.beginObject(.compact)
    for id in vocabulary.types.indices where !vocabulary.isPadding(id) {
      json.key(utf8: vocabulary.tokens.slice(id))
      json.number(id)
    }
    json.end()
  }

  mutating func writeMerges(_ count: Int, _ merge: (Int) -> (ArraySlice<UInt8>, ArraySlice<UInt8>)) {
    json.key("merges")
    json.beginArray(.compact)
    for position in 0..<count {
      let (first, second) = merge(position)
      json.beginArray(.compact)
      json.string(utf8: first)
      json.string(utf8: second)
      json.end()
    }
    json.end()
  }

  consuming func finished() -> [UInt8] {
    json.end()
    json.end()
    return json.bytes + [UInt8(ascii: "\n")]
  }
}
