import Bytes
import GGUF
import JSON
import ModelFamilies

/// The vocabulary of a GGUF file, checked.
struct StoredVocabulary {
  let tokens: ByteStrings
  let index: StringIndex
  let types: [TokenType]
  /// By the names that `tokenizer_config.json` has for them, without `_token`.
  let ids: [(type: String, id: Int)]
  /// Nil where the file does not say.
  let beginsText: Bool?
  let endsText: Bool?
  /// Whether a second text begins as the first does. The converter asks what stands between two, and says something of
  /// it only where something does.
  private let separatesTexts: Bool

  init(_ metadata: GGUFMetadata) throws(Failure) {
    let key = "tokenizer.ggml.tokens"
    guard let count = try metadata.array(key)?.count else {
      throw Failure(.missing, "metadata '\(key)' is absent: the file has no vocabulary")
    }
    // Before they are read.
    guard (1...VocabularySize.limit).contains(count) else {
      throw Failure(
        .malformed, "metadata '\(key)' has \(count) tokens, allowed are 1 to \(VocabularySize.limit)")
    }
    let stored = try metadata.byteStrings(key) ?? []
    var tokens = ByteStrings()
    for (id, token) in stored.enumerated() {
      guard !token.isEmpty, String(validating: token, as: UTF8.self) != nil else {
        throw Failure(.malformed, "token \(id) is \(token.isEmpty ? "empty" : "not UTF-8")")
      }
      tokens.append(token[...])
    }
    index = StringIndex(tokens)
    if let (first, second) = index.firstDuplicate {
      throw Failure(.malformed, "tokens \(first) and \(second) are the same text")
    }
    self.tokens = tokens
    types = try Self.types(metadata, count: tokens.count)
    ids = try Self.ids(metadata, count: tokens.count)
    beginsText = try metadata.bool("tokenizer.ggml.add_bos_token")
    endsText = try metadata.bool("tokenizer.ggml.add_eos_token")
    separatesTexts = try metadata.bool("tokenizer.ggml.add_sep_token") != nil
  }

  private static func types(_ metadata: GGUFMetadata, count: Int) throws(Failure) -> [TokenType] {
    let key = "tokenizer.ggml.token_type"
    guard let found = try metadata.array(key)?.count else { return [TokenType](repeating: .normal, count: count) }
    guard found == count else {
      throw Failure(.malformed, "metadata '\(key)' has \(found) elements for \(count) tokens")
    }
    let stored = try metadata.integers(key) ?? []
    var types: [TokenType] = []
    types.reserveCapacity(count)
    for (id, number) in stored.enumerated() {
      guard let type = Int32(exactly: number).flatMap(TokenType.init) else {
        throw Failure(.malformed, "token \(id) has type \(number), allowed are 1 to 6")
      }
      types.append(type)
    }
    return types
  }

  private static func ids(_ metadata: GGUFMetadata, count: Int) throws(Failure) -> [(type: String, id: Int)] {
    var ids: [(type: String, id: Int)] = []
    for type in SpecialTokens.usualTypes + ["eot", "eom"] {
      guard let name = TokenizerConversion.idKeys[type] else { continue }
      guard let id = try metadata.integer("tokenizer.ggml.\(name)") else { continue }
      guard (0..<count).contains(id) else {
        throw Failure(.malformed, "metadata 'tokenizer.ggml.\(name)' is \(id), but there are \(count) tokens")
      }
      ids.append((type, id))
    }
    return ids
  }

  func id(_ type: String) -> Int? { ids.first { $0.type == type }?.id }

  func text(_ id: Int) -> String { String(decoding: tokens.slice(id), as: UTF8.self) }

  /// A row of the model that the converter gave a name, since each needs one.
  func isPadding(_ id: Int) -> Bool {
    types[id] == .unused && tokens.slice(id).elementsEqual("[PAD\(id)]".utf8)
  }

  /// `bos_token` and the like.
  var namedTokens: [(key: String, token: String)] {
    ids.filter { SpecialTokens.usualTypes.contains($0.type) }.map { ("\($0.type)_token", text($0.id)) }
  }

  /// Generation stops at the end of a turn too.
  ///
  /// - Throws: `malformed` for a recommendation for sampling of another type than its key has.
  func generationConfiguration(_ metadata: GGUFMetadata) throws(Failure) -> JSONValue {
    var object = JSONObject()
    if let id = id("bos") { object["bos_token_id"] = .number(id) }
    var ends: [Int] = []
    for type in ["eos", "eot", "eom"] { if let id = id(type), !ends.contains(id) { ends.append(id) } }
    if let first = ends.first {
      object["eos_token_id"] = ends.count == 1 ? .number(first) : .array(ends.map { .number($0) })
    }
    if let id = id("pad") { object["pad_token_id"] = .number(id) }
    for (key, value) in try SamplingMetadata.configuration(metadata).members { object[key] = value }
    return .object(object)
  }

  /// The tokens that are found in a text before anything else is done with it.
  func addedTokens(stripsRight: (String) -> Bool = { _ in false }) -> [AddedToken] {
    types.indices.compactMap { id in
      switch types[id] {
      case .control, .unknown, .userDefined:
        let text = text(id)
        return AddedToken(
          id: id, content: text, isSpecial: types[id] != .userDefined, stripsRight: stripsRight(text))
      case .normal, .unused, .byte: return nil
      }
    }
  }

  /// Puts tokens before and after a text; nil where there are none.
  func template(begins: Bool, ends: Bool) -> JSONValue? {
    let before = begins ? id("bos") : nil
    let after = ends ? id("eos") : nil
    guard before != nil || after != nil else { return nil }
    var tokens = JSONObject()
    func special(_ id: Int?) -> [JSONValue] {
      guard let id else { return [] }
      let text = JSONValue.string(text(id))
      tokens[self.text(id)] = ["id": text, "ids": [.number(id)], "tokens": [text]]
      return [["SpecialToken": ["id": text, "type_id": 0]]]
    }
    func sequence(_ name: String, _ type: Int) -> JSONValue {
      ["Sequence": ["id": .string(name), "type_id": .number(type)]]
    }
    func around(_ name: String, _ type: Int) -> [JSONValue] {
      special(before) + [sequence(name, type)] + special(after)
    }
    let single = around("A", 0)
    let pair =
      separatesTexts
      ? single + around("B", 1) : special(before) + [sequence("A", 0), sequence("B", 1)] + special(after)
    return [
      "type": "TemplateProcessing", "single": .array(single), "pair": .array(pair),
      "special_tokens": .object(tokens),
    ]
  }

  /// `tokenizer_config.json` as far as it is the same for every kind.
  func configuration(_ added: [AddedToken], _ metadata: GGUFMetadata) throws(Failure) -> JSONObject {
    var object: JSONObject = ["tokenizer_class": "PreTrainedTokenizerFast"]
    if let beginsText { object["add_bos_token"] = .bool(beginsText) }
    if let endsText { object["add_eos_token"] = .bool(endsText) }
    var tokens: [(key: String, value: JSONValue)] = []
    for token in added { tokens.append((String(token.id), .object(token.json))) }
    for (key, token) in namedTokens { object[key] = .string(token) }
    object["clean_up_tokenization_spaces"] = false
    if let name = try metadata.text("general.architecture"),
      let length = try metadata.integer("\(name).context_length")
    {
      object["model_max_length"] = .number(length)
    }
    object["added_tokens_decoder"] = .object(JSONObject(distinct: tokens))
    return object
  }
}

extension AddedToken {
  /// Without its number.
  var json: JSONObject {
    [
      "content": .string(content), "single_word": .bool(isSingleWord), "lstrip": .bool(stripsLeft),
      "rstrip": .bool(stripsRight), "normalized": .bool(isNormalized), "special": .bool(isSpecial),
    ]
  }
}
