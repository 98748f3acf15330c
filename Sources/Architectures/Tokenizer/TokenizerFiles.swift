import Bytes
import JSON

/// The files of a Hugging Face directory that say something of its tokenizer.
struct TokenizerFiles {
  /// `tokenizer.json`; its model only where there is no `tokenizer.model`, whose pieces it would repeat.
  let tokenizer: TokenizerFile?
  let sentencePiece: [UInt8]?
  let configuration: JSONObject?
  let addedTokens: JSONObject?
  let specialTokensMap: JSONObject?
  let chatTemplate: String?
  let chatTemplateJSON: JSONObject?
  let otherTemplates: [(name: String, template: String)]
  let hasTekken: Bool

  static let configurationFile = "tokenizer_config.json"
  static let addedTokensFile = "added_tokens.json"
  static let specialTokensFile = "special_tokens_map.json"

  /// - Parameter usesSentencePiece: whether the family can have a `tokenizer.model`.
  init(
    usesSentencePiece: Bool, _ read: (String) throws(Failure) -> [UInt8]?
  ) throws(Failure) {
    func object(_ file: String) throws(Failure) -> JSONObject? {
      guard let bytes = try read(file) else { return nil }
      let json = try JSONValue(parsing: bytes, .python, file: file)
      guard let object = json.object else { throw Failure(.malformed, "is \(json.kind.rawValue)", file: file) }
      try Self.checkText(of: object, file)
      return object
    }
    func text(_ file: String) throws(Failure) -> String? {
      guard let bytes = try read(file) else { return nil }
      guard let text = String(validating: bytes, as: UTF8.self) else {
        throw Failure(.malformed, "is not UTF-8", file: file)
      }
      return text
    }
    sentencePiece = usesSentencePiece ? try read(SentencePieceModel.file) : nil
    if let bytes = try read(TokenizerFile.file) {
      tokenizer = try TokenizerFile(parsing: bytes, sentencePiece == nil ? .everything : .allButModel)
    } else {
      tokenizer = nil
    }
    configuration = try object(Self.configurationFile)
    addedTokens = try object(Self.addedTokensFile)
    specialTokensMap = try object(Self.specialTokensFile)
    chatTemplate = try text(ChatTemplate.file)
    chatTemplateJSON = try object("chat_template.json")
    var others: [(name: String, template: String)] = []
    for name in ChatTemplate.knownNames {
      if let template = try text("\(ChatTemplate.folder)/\(name).jinja") { others.append((name, template)) }
    }
    otherTemplates = others
    hasTekken = tokenizer == nil ? try read("tekken.json") != nil : false
  }

  /// What is to become text of GGUF must be one of Unicode.
  private static func checkText(of object: JSONObject, _ file: String) throws(Failure) {
    func refused(_ what: String) -> Failure {
      Failure(.unsupported, "\(what) has half of a surrogate pair, which the UTF-8 of GGUF cannot hold", file: file)
    }
    if file == addedTokensFile, object.hasIllFormedKeys { throw refused("a token") }
    let used = ["chat_template", "additional_special_tokens", "extra_special_tokens", "added_tokens_decoder"]
    for (key, value) in object.members where value.hasIllFormedText {
      if used.contains(key) || key.hasBytes(suffix: "_token") { throw refused("'\(key)'") }
    }
  }

  /// `added_tokens_decoder` of `tokenizer_config.json`, in its order.
  func configuredTokens() throws(Failure) -> [AddedToken] {
    guard let value = configuration?["added_tokens_decoder"], !value.isNull else { return [] }
    do throws(Failure) {
      guard let object = value.object else {
        throw Failure(.malformed, "'added_tokens_decoder' is \(value.kind.rawValue), expected an object")
      }
      var tokens: [AddedToken] = []
      for (key, token) in object.members {
        guard let id = Int(key) else {
          throw Failure(.malformed, "'added_tokens_decoder' has the key '\(key.printable(limit: 128))', no number")
        }
        tokens.append(try AddedToken(token, id: id, subject: "added token \(id)"))
      }
      return tokens
    } catch { throw error.located(file: Self.configurationFile) }
  }

  /// `added_tokens.json`, in its order.
  func listedTokens() throws(Failure) -> [(content: String, id: Int)] {
    var tokens: [(content: String, id: Int)] = []
    for (content, value) in addedTokens?.members ?? [] {
      guard let id = value.int, (0..<VocabularySize.limit).contains(id) else {
        throw Failure(
          .malformed, "token '\(content.printable(limit: 128))' has no number below \(VocabularySize.limit)",
          file: Self.addedTokensFile)
      }
      tokens.append((content, id))
    }
    return tokens
  }

  /// The contents of the tokens with a role, and of the further ones declared special.
  func namedTokens() -> [String] {
    // The map is what older versions of transformers wrote beside the configuration, which has replaced it.
    let isOld = configuration?["added_tokens_decoder"] == nil
    let sources = [configuration, isOld ? specialTokensMap : nil].compactMap(\.self)
    var contents: [String] = []
    func add(_ value: JSONValue?) {
      if let content = value?.string ?? value?["content"]?.string, !content.isEmpty { contents.append(content) }
    }
    for source in sources {
      for type in SpecialTokens.usualTypes { add(source["\(type)_token"]) }
      for key in ["additional_special_tokens", "extra_special_tokens"] {
        for value in source[key]?.array ?? source[key]?.object?.members.map(\.value) ?? [] { add(value) }
      }
    }
    return contents
  }
}
