import Bytes
import GGUF
import JSON

extension TokenizerConversion {
  /// The vocabulary of `tokenizer.model`, and the tokens that the other files add to it or say more of.
  mutating func write(sentencePiece model: SentencePieceModel) throws(Failure) {
    let count = size ?? model.pieces.count
    var table = TokenTable(count: count)
    if model.pieces.count > count {
      let message = "vocab_size is \(count), but \(SentencePieceModel.file) has \(model.pieces.count) pieces"
      if family == .phi3 { throw Failure(.malformed, message) }
      output.warn("\(message): the last ones are left out")
    }
    for id in 0..<min(count, model.pieces.count) {
      // The converter asks for every type but that of a user's own piece.
      let type = model.types[id] == .userDefined ? .normal : model.types[id]
      table.set(id, model.pieces[id], model.scores[id], type)
    }
    for (content, id) in try files.listedTokens() where isInRange(id, count) {
      table.set(id, Array(content.utf8), -1000, .userDefined)
    }
    for token in try files.configuredTokens() {
      if family == .phi3 {
        try setPhi(token, &table, file: TokenizerFiles.configurationFile)
      } else if isInRange(token.id, count) {
        set(token, &table)
      }
    }
    if family == .phi3 {
      for token in files.tokenizer?.addedTokens ?? [] { try setPhi(token, &table, file: TokenizerFile.file) }
    }
    try finish(table)
  }

  /// The same vocabulary where only `tokenizer.json` has it: merges in place of scores.
  ///
  /// SentencePiece merges the pair whose result has the highest score. The merges of one result stand together in
  /// the list, so that the place of the first is as good a score, negated.
  mutating func write(byteFallback file: TokenizerFile) throws(Failure) {
    var ranks = [Int](repeating: Int.max, count: file.tokens.count)
    var last: Int?
    var isScattered = false
    for position in 0..<file.merges.count {
      guard let result = file.index.position(of: file.merges.bytes, file.merges.range(position)) else { continue }
      if ranks[result] == Int.max { ranks[result] = position } else if last != result { isScattered = true }
      last = result
    }
    if isScattered {
      output.warn("the merges of one token are apart in \(TokenizerFile.file): scores cannot express their order")
    }
    let vocabulary = try Vocabulary(files, file)
    let count = size ?? vocabulary.count
    try vocabulary.check(count)
    var table = TokenTable(count: count)
    var single = 0
    for (position, id) in file.ids.enumerated() {
      let token = file.tokens[position]
      let isByte = Self.isByteToken(token)
      if ranks[position] == Int.max { single += 1 }
      let rank = ranks[position] == Int.max ? file.merges.count + single : ranks[position]
      table.set(id, token, isByte ? 0 : -Float(rank), isByte ? .byte : .normal)
    }
    for token in vocabulary.addedTokens { set(token, &table) }
    if !Self.prependsSpace(file), !output.pairs.contains(where: { $0.key == GGUFTokenizer.prefix + "add_space_prefix" })
    {
      output.set(ggml: "add_space_prefix", .bool(false))
    }
    try finish(table)
  }

  private mutating func finish(_ table: TokenTable) throws(Failure) {
    write(table, model: "llama", pre: "default", scores: true)
    write(try SpecialTokens(files, config, limit: table.count))
  }

  private mutating func isInRange(_ id: Int, _ count: Int) -> Bool {
    if id < count { return true }
    output.warn("beyond the \(count) tokens of vocab_size and left out: \(list: ["\(id)"])")
    return false
  }

  private mutating func set(_ token: AddedToken, _ table: inout TokenTable) {
    let isControl = token.isSpecial || TokenTable.looksSpecial(token.content)
    table.set(
      token.id, isControl ? Array(token.content.utf8) : TokenTable.withSpaces(token.content), -1000,
      isControl ? .control : .userDefined)
  }

  private func setPhi(_ token: AddedToken, _ table: inout TokenTable, file: String) throws(Failure) {
    guard token.id < table.count else {
      throw Failure(.malformed, "token \(token.id) is beyond the \(table.count) of vocab_size", file: file)
    }
    table.set(token.id, Array(token.content.utf8), -1000, token.isSpecial ? .control : .userDefined)
  }

  /// `<0x0A>`
  static func isByteToken(_ token: [UInt8]) -> Bool {
    token.count == 6 && token.starts(with: Array("<0x".utf8)) && token[5] == UInt8(ascii: ">")
      && token[3...4].allSatisfy { Character(Unicode.Scalar($0)).isHexDigit }
  }

  /// Whether a text begins with a space that it has not.
  private static func prependsSpace(_ file: TokenizerFile) -> Bool {
    let normalizers = file.normalizer["normalizers"]?.array ?? [file.normalizer]
    if normalizers.contains(where: { $0["type"]?.string == "Prepend" }) { return true }
    let preTokenizers = file.preTokenizer["pretokenizers"]?.array ?? [file.preTokenizer]
    return preTokenizers.contains {
      $0["type"]?.string == "Metaspace" && $0["prepend_scheme"]?.string != "never"
        && $0["add_prefix_space"]?.bool != false
    }
  }
}
