import Bytes

/// The tokens of a GGUF vocabulary, by number.
struct TokenTable {
  private(set) var tokens: [[UInt8]]
  private(set) var scores: [Float]
  private(set) var types: [TokenType]

  /// Every number stands for a row of the model that no text leads to, until it is set.
  init(count: Int) {
    tokens = [[UInt8]](repeating: [], count: count)
    scores = [Float](repeating: -10000, count: count)
    types = [TokenType](repeating: .unused, count: count)
  }

  var count: Int { tokens.count }

  /// - Precondition: `id` is in range.
  mutating func set(_ id: Int, _ token: [UInt8], _ score: Float, _ type: TokenType) {
    tokens[id] = token
    scores[id] = score
    types[id] = type
  }

  /// In a file each token needs a text of its own.
  func encodedTokens() -> EncodedStrings {
    var strings = EncodedStrings()
    for (id, token) in tokens.enumerated() {
      strings.append(token.isEmpty && types[id] == .unused ? Array("[PAD\(id)]".utf8) : token)
    }
    return strings
  }

  /// Tokens that models mark as ordinary though no user may write them.
  static func looksSpecial(_ token: String) -> Bool {
    let marks = [("<|", "|>"), ("<｜", "｜>"), ("<unused", ">")]
    return ["<pad>", "<mask>", "<2mass>", "[@BOS@]"].contains(token)
      || marks.contains { token.hasBytes(prefix: $0.0) && token.hasBytes(suffix: $0.1) }
  }

  /// A token that is found in raw text: SentencePiece's mark for a space stands for one.
  static func withSpaces(_ token: String) -> [UInt8] { Array(token.utf8).replacing(spaceMark, with: [0x20]) }

  /// U+2581, which stands for a space inside SentencePiece.
  static let spaceMark = Array("\u{2581}".utf8)
}
