import Bytes
import JSON

/// A token that is found in a text before anything else is done with it.
struct AddedToken: Sendable {
  var id: Int
  var content: String
  var isSpecial = false
  /// Whether it is looked for in the normalized text.
  var isNormalized = false
  var stripsLeft = false
  var stripsRight = false
  var isSingleWord = false
}

extension AddedToken {
  /// - Parameter id: from elsewhere, where the object does not say it.
  init(_ json: JSONValue, id: Int? = nil, subject: String) throws(Failure) {
    guard let object = json.object else { throw Failure(.malformed, "\(subject) is \(json.kind.rawValue)") }
    guard let id = id ?? object["id"]?.int, id >= 0, id < VocabularySize.limit else {
      throw Failure(.malformed, "\(subject): its id is not a whole number below \(VocabularySize.limit)")
    }
    if object["content"]?.hasIllFormedText == true {
      throw Failure(
        .unsupported, "\(subject) has half of a surrogate pair, which the UTF-8 of GGUF cannot hold")
    }
    guard let content = object["content"]?.string, !content.isEmpty else {
      throw Failure(.malformed, "\(subject): its content is not a text")
    }
    func flag(_ key: String) throws(Failure) -> Bool {
      guard let value = object[key], !value.isNull else { return false }
      guard let flag = value.bool else {
        throw Failure(.malformed, "\(subject): '\(key)' is \(value.kind.rawValue), expected true or false")
      }
      return flag
    }
    self.init(
      id: id, content: content, isSpecial: try flag("special"), isNormalized: try flag("normalized"),
      stripsLeft: try flag("lstrip"), stripsRight: try flag("rstrip"), isSingleWord: try flag("single_word"))
  }
}

/// `tokenizer.json`, with its vocabulary and merges in flat buffers: they are all of its size.
struct TokenizerFile: Sendable {
  /// The tokens of `model.vocab`, in the order of the file.
  private(set) var tokens = ByteStrings()
  /// The tokens' numbers in an object, or their places in a list, as Unigram has.
  private(set) var ids: [Int] = []
  private(set) var index = StringIndex(ByteStrings())
  /// Each merge as the two tokens one after the other, and the length of the first.
  private(set) var merges = ByteStrings()
  private(set) var splits: [Int] = []
  /// The other members of `model`.
  private(set) var options = JSONObject()
  private(set) var addedTokens: [AddedToken] = []
  private(set) var normalizer = JSONValue.null
  private(set) var preTokenizer = JSONValue.null
  private(set) var postProcessor = JSONValue.null
  private(set) var decoder = JSONValue.null

  static let file = "tokenizer.json"

  enum Scope { case everything, allButModel }

  /// - Throws: `malformed` for a text that is not JSON or is shaped otherwise, for a token or a number that occurs
  ///   twice, and for a merge of tokens that are not in the vocabulary.
  init(parsing bytes: [UInt8], _ scope: Scope) throws(Failure) {
    do throws(Failure) {
      var reader = JSONReader(bytes, .python)
      var seen: Set<String> = []
      try reader.enterObject()
      while let (key, offset) = try reader.nextMember() {
        guard seen.insert(key).inserted else { throw .duplicateKey(key, first: offset, second: offset) }
        switch key {
        case "model" where scope == .everything: try readModel(&reader)
        case "added_tokens": try readAddedTokens(&reader)
        case "normalizer": normalizer = try reader.value()
        case "pre_tokenizer": preTokenizer = try reader.value()
        case "post_processor": postProcessor = try reader.value()
        case "decoder": decoder = try reader.value()
        default: try reader.skipValue()
        }
      }
      try reader.finish()
      if scope == .everything { try checkModel() }
    } catch { throw (Failure.noJSON(bytes) ?? error).located(file: Self.file) }
  }

  private mutating func readModel(_ reader: inout JSONReader) throws(Failure) {
    var seen: Set<String> = []
    try reader.enterObject()
    while let (key, offset) = try reader.nextMember() {
      guard seen.insert(key).inserted else { throw .duplicateKey(key, first: offset, second: offset) }
      switch key {
      case "vocab": try readVocabulary(&reader)
      case "merges": try readMerges(&reader)
      default: options[key] = try reader.value()
      }
    }
  }

  private mutating func readVocabulary(_ reader: inout JSONReader) throws(Failure) {
    guard try reader.nextKind() == .object else { return try readPieces(&reader) }
    try reader.enterObject()
    while let offset = try tokens.appendKey(from: &reader) {
      let id = try reader.wholeNumber("a token's number")
      guard id < VocabularySize.limit else {
        throw Failure(
          .malformed,
          "token '\(shown(tokens.slice(ids.count)))' has number \(id), allowed are those below \(VocabularySize.limit)",
          offset: offset)
      }
      ids.append(id)
    }
  }

  private mutating func readPieces(_ reader: inout JSONReader) throws(Failure) {
    try reader.enterArray()
    while try reader.nextElement() {
      try reader.enterArray()
      guard try reader.nextElement() else { throw Failure(.malformed, "a piece is empty", offset: reader.offset) }
      try tokens.append(from: &reader)
      ids.append(ids.count)
      while try reader.nextElement() { try reader.skipValue() }
    }
  }

  private mutating func readMerges(_ reader: inout JSONReader) throws(Failure) {
    try reader.enterArray()
    while try reader.nextElement() {
      let offset = reader.offset
      if try reader.nextKind() == .string {
        try merges.append(from: &reader)
        guard let length = merges.removeSpace() else {
          throw Failure(.malformed, "merge \(splits.count) is not two tokens with a space between", offset: offset)
        }
        splits.append(length)
      } else {
        guard let length = try merges.appendPair(from: &reader) else {
          throw Failure(.malformed, "merge \(splits.count) has not two tokens", offset: offset)
        }
        splits.append(length)
      }
    }
  }

  private mutating func readAddedTokens(_ reader: inout JSONReader) throws(Failure) {
    try reader.enterArray()
    while try reader.nextElement() {
      addedTokens.append(try AddedToken(try reader.value(), subject: "added token \(addedTokens.count)"))
    }
  }

  private mutating func checkModel() throws(Failure) {
    // One after the other they are UTF-8 only if each is.
    if String(validating: tokens.bytes, as: UTF8.self) == nil {
      for position in 0..<tokens.count where String(validating: tokens.slice(position), as: UTF8.self) == nil {
        throw Failure(
          .unsupported,
          "token \(ids[position]) has half of a surrogate pair, which the UTF-8 of GGUF cannot hold")
      }
    }
    index = StringIndex(tokens)
    if let (_, second) = index.firstDuplicate {
      throw Failure(.malformed, "token '\(shown(tokens.slice(second)))' occurs twice in the vocabulary")
    }
    for position in 0..<merges.count {
      let whole = merges.range(position)
      let middle = whole.lowerBound + splits[position]
      try check(whole.lowerBound..<middle, position)
      try check(middle..<whole.upperBound, position)
      try check(whole, position)
    }
  }

  /// - Parameter part: of the merges' bytes.
  private func check(_ part: Range<Int>, _ merge: Int) throws(Failure) {
    guard index.position(of: merges.bytes, part) == nil else { return }
    throw Failure(
      .malformed, "merge \(merge) needs token '\(shown(merges.bytes[part]))', which is not in the vocabulary")
  }

  private func shown(_ bytes: ArraySlice<UInt8>) -> String {
    String(decoding: bytes, as: UTF8.self).printable(limit: 128)
  }
}
