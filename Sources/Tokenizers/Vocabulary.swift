import Bytes

/// The numbers of `tokenizer.json`'s tokens, those of its model and those added to it.
struct Vocabulary {
  /// The added tokens by number: those of `tokenizer.json`, completed by the tokenizer's configuration.
  private(set) var addedTokens: [AddedToken] = []
  /// One more than the highest number.
  private(set) var count = 0

  /// - Throws: `malformed` for a number of two tokens, and a token with two numbers.
  init(_ files: TokenizerFiles, _ file: TokenizerFile) throws(Failure) {
    count = (file.ids.max() ?? -1) + 1
    // Numbers are below the limit of a vocabulary's size.
    var isTaken = [Bool](repeating: false, count: count)
    for id in file.ids {
      if isTaken[id] {
        throw Failure(.malformed, "number \(id) stands for two tokens of the vocabulary", file: TokenizerFile.file)
      }
      isTaken[id] = true
    }
    var beyond: Set<Int> = []
    var positions: [[UInt8]: Int] = [:]
    func add(_ token: AddedToken, source: String) throws(Failure) {
      let content = Array(token.content.utf8)
      func rejected(_ other: Int) -> Failure {
        Failure(
          .malformed, "token '\(token.content.printable(limit: 128))' has number \(token.id) and number \(other)",
          file: source)
      }
      if let position = positions[content] {
        guard addedTokens[position].id == token.id else { throw rejected(addedTokens[position].id) }
        addedTokens[position] = token
        return
      }
      if let position = file.index.position(of: content) {
        guard file.ids[position] == token.id else { throw rejected(file.ids[position]) }
      } else {
        guard token.id >= isTaken.count || !isTaken[token.id], beyond.insert(token.id).inserted else {
          throw Failure(.malformed, "number \(token.id) stands for two tokens", file: source)
        }
        count = max(count, token.id + 1)
      }
      positions[content] = addedTokens.count
      addedTokens.append(token)
    }
    for token in file.addedTokens { try add(token, source: TokenizerFile.file) }
    for token in try files.configuredTokens() { try add(token, source: TokenizerFiles.configurationFile) }
    for content in files.namedTokens() {
      let bytes = Array(content.utf8)
      if let position = positions[bytes] {
        addedTokens[position].isSpecial = true
      } else {
        let id = file.index.position(of: bytes).map { file.ids[$0] } ?? count
        try add(AddedToken(id: id, content: content, isSpecial: true), source: TokenizerFiles.configurationFile)
      }
    }
    addedTokens.sort { $0.id < $1.id }
  }

  /// - Throws: `malformed` when the model has fewer rows than there are tokens.
  func check(_ size: Int) throws(Failure) {
    guard count <= size else {
      throw Failure(
        .malformed, "the tokens' numbers go up to \(count - 1), but vocab_size is \(size)", file: TokenizerFile.file)
    }
  }
}
