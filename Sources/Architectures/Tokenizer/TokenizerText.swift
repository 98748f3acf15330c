import JSON

/// The text of a `tokenizer.json`, whose vocabulary is written as it comes.
struct TokenizerText {
  private var text = ""

  /// - Parameters:
  ///   - members: what stands before the model, in order.
  ///   - options: what the model says besides its vocabulary and merges.
  init(_ members: [(key: String, value: JSONValue)], added: [AddedToken], options: [(key: String, value: JSONValue)]) {
    text = #"{"version":"1.0","truncation":null,"padding":null,"added_tokens":["#
    for (position, token) in added.enumerated() {
      if position > 0 { text += "," }
      text += "{\"id\":\(token.id)," + JSONValue.object(token.json).text(.compact).dropFirst()
    }
    text += "]"
    for (key, value) in members { text += "," + key.jsonText + ":" + value.text(.compact) }
    text += #","model":{"type":"BPE","dropout":null"#
    for (key, value) in options { text += "," + key.jsonText + ":" + value.text(.compact) }
  }

  mutating func writeVocabulary(_ vocabulary: StoredVocabulary) {
    text += #","vocab":{"#
    var isFirst = true
    for id in vocabulary.types.indices where !vocabulary.isPadding(id) {
      if !isFirst { text += "," }
      isFirst = false
      text += vocabulary.text(id).jsonText
      text += ":\(id)"
    }
    text += "}"
  }

  mutating func writeMerges(_ count: Int, _ merge: (Int) -> (ArraySlice<UInt8>, ArraySlice<UInt8>)) {
    text += #","merges":["#
    for position in 0..<count {
      let (first, second) = merge(position)
      text += position == 0 ? "[" : ",["
      text += String(decoding: first, as: UTF8.self).jsonText
      text += ","
      text += String(decoding: second, as: UTF8.self).jsonText
      text += "]"
    }
    text += "]"
  }

  func finished() -> [UInt8] { Array(text.utf8) + Array("}}\n".utf8) }
}
