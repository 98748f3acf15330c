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
  /// The chat templates in files of their own: the main one, then the others in the order of their names.
  let templates: [(name: String, text: String)]
  let oldTemplates: JSONObject?
  let hasTekken: Bool

  static let configurationFile = "tokenizer_config.json"
  static let addedTokensFile = "added_tokens.json"
  static let specialTokensFile = "special_tokens_map.json"

  /// - Parameters:
  ///   - usesSentencePiece: whether the family can have a `tokenizer.model`.
  ///   - names: of the directory's files, folders included; the chat templates are found among them.
  init(
    usesSentencePiece: Bool, names: [String], _ read: (String) throws(Failure) -> [UInt8]?
  ) throws(Failure) {
    func object(_ file: String) throws(Failure) -> JSONObject? { try Self.object(file, read) }
    sentencePiece = usesSentencePiece ? try read(SentencePieceModel.file) : nil
    if let bytes = try read(TokenizerFile.file) {
      tokenizer = try TokenizerFile(parsing: bytes, sentencePiece == nil ? .everything : .allButModel)
    } else {
      tokenizer = nil
    }
    configuration = try object(Self.configurationFile)
    addedTokens = try object(Self.addedTokensFile)
    specialTokensMap = try object(Self.specialTokensFile)
    templates = try Self.templates(names, read)
    oldTemplates = try object(ChatTemplateFiles.old)
    hasTekken = tokenizer == nil ? try read("tekken.json") != nil : false
  }

  /// Checks that texts that GGUF is to hold are Unicode.
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

  /// Only what says something of chat templates.
  init(templatesAmong names: [String], _ read: (String) throws(Failure) -> [UInt8]?) throws(Failure) {
    sentencePiece = nil
    tokenizer = nil
    addedTokens = nil
    specialTokensMap = nil
    hasTekken = false
    configuration = try Self.object(Self.configurationFile, read)
    templates = try Self.templates(names, read)
    oldTemplates = try Self.object(ChatTemplateFiles.old, read)
  }

  private static func object(
    _ file: String, _ read: (String) throws(Failure) -> [UInt8]?
  ) throws(Failure) -> JSONObject? {
    guard let bytes = try read(file) else { return nil }
    let json = try JSONValue(parsing: bytes, .python, file: file)
    guard let object = json.object else { throw Failure(.malformed, "is \(json.kind.rawValue)", file: file) }
    try checkText(of: object, file)
    return object
  }

  private static func templates(
    _ names: [String], _ read: (String) throws(Failure) -> [UInt8]?
  ) throws(Failure) -> [(name: String, text: String)] {
    var main: [(name: String, text: String)] = []
    var others: [(name: String, text: String)] = []
    for file in names.sorted(by: { $0.utf8.lexicographicallyPrecedes($1.utf8) }) {
      guard let name = ChatTemplateFiles.name(of: file), let bytes = try read(file) else { continue }
      guard let text = String(validating: bytes, as: UTF8.self) else {
        throw Failure(.malformed, "is not UTF-8", file: file)
      }
      if file == ChatTemplateFiles.main { main.append((name, text)) } else { others.append((name, text)) }
    }
    return main + others
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
