import Bytes
import GGUF
import JSON

/// A SentencePiece vocabulary of a GGUF file as the files of transformers.
struct SentencePieceFiles {
  private let vocabulary: StoredVocabulary
  private let scores: [Float]
  private let prependsSpace: Bool
  private let added: [AddedToken]
  let configuration: JSONValue

  /// The score of a token that was added to the pieces from another file.
  private static let addedScore: Float = -1000

  private struct Merge {
    let score: Float
    let result: Int
    let first: Int
    let second: Int
  }

  init(_ vocabulary: StoredVocabulary, _ metadata: GGUFMetadata) throws(Failure) {
    self.vocabulary = vocabulary
    let count = vocabulary.tokens.count
    let key = "tokenizer.ggml.scores"
    let isOfEach = try metadata.array(key).map { $0.count == count } ?? true
    let stored = isOfEach ? try metadata.numbers(key) ?? [Double](repeating: 0, count: count) : []
    guard isOfEach, stored.allSatisfy({ !$0.isNaN }) else {
      throw Failure(.malformed, "metadata '\(key)' has not one number for each of \(count) tokens")
    }
    scores = stored.map { Float($0) }
    prependsSpace = try metadata.bool("tokenizer.ggml.add_space_prefix") ?? true
    // Nothing in the file says so; llama.cpp goes by the name too.
    let isPhi = try metadata.text("general.architecture") == "phi3"
    added = vocabulary.addedTokens { isPhi && !["<unk>", "<s>", "<|endoftext|>"].contains($0) }
    // Whatever stands in `added_tokens_decoder` is given this score and loses its own. `tokenizer.model` has the rest.
    let scores = scores
    var configuration = try vocabulary.configuration(
      added.filter { scores[$0.id] == Self.addedScore && vocabulary.types[$0.id] != .unknown }, metadata)
    if let value = try metadata.bool("tokenizer.ggml.add_space_prefix") {
      configuration["add_prefix_space"] = .bool(value)
    }
    self.configuration = .object(configuration)
  }

  /// llama.cpp takes number 0 where the file does not say.
  private var unknown: Int { vocabulary.id("unk") ?? 0 }

  private var fallsBackToBytes: Bool { vocabulary.types.count { $0 == .byte } == 256 }

  // MARK: - tokenizer.json

  func tokenizer() -> [UInt8] {
    let mark: JSONValue = "\u{2581}"
    let toMark: JSONValue = ["type": "Replace", "pattern": ["String": " "], "content": mark]
    let prepend: JSONValue = ["type": "Prepend", "prepend": mark]
    var decoders: [JSONValue] = [
      ["type": "Replace", "pattern": ["String": mark], "content": " "], ["type": "ByteFallback"], ["type": "Fuse"],
    ]
    if prependsSpace { decoders.append(["type": "Strip", "content": " ", "start": 1, "stop": 0]) }
    let merges = merges()
    var text = TokenizerText(
      [
        ("normalizer", ["type": "Sequence", "normalizers": prependsSpace ? [prepend, toMark] : [toMark]]),
        ("pre_tokenizer", .null),
        (
          "post_processor",
          vocabulary.template(begins: vocabulary.beginsText ?? true, ends: vocabulary.endsText ?? false) ?? .null
        ),
        ("decoder", ["type": "Sequence", "decoders": .array(decoders)]),
      ],
      added: added,
      options: [
        ("unk_token", .string(vocabulary.text(unknown))), ("continuing_subword_prefix", .null),
        ("end_of_word_suffix", .null), ("fuse_unk", true), ("byte_fallback", .bool(fallsBackToBytes)),
        ("ignore_merges", false),
      ])
    text.writeVocabulary(vocabulary)
    text.writeMerges(merges.count) { position in
      (vocabulary.tokens.slice(merges[position].first), vocabulary.tokens.slice(merges[position].second))
    }
    return text.finished()
  }

  /// Every pair of pieces that makes a piece, the highest score first: SentencePiece merges in that order.
  private func merges() -> [Merge] {
    var merges: [Merge] = []
    let bytes = vocabulary.tokens.bytes
    for id in vocabulary.types.indices where vocabulary.types[id] == .normal {
      let range = vocabulary.tokens.range(id)
      let start = merges.count
      for middle in range.dropFirst() where bytes[middle] & 0xC0 != 0x80 {
        guard let first = vocabulary.index.position(of: bytes, range.lowerBound..<middle),
          vocabulary.types[first] == .normal,
          let second = vocabulary.index.position(of: bytes, middle..<range.upperBound),
          vocabulary.types[second] == .normal
        else { continue }
        merges.append(Merge(score: scores[id], result: id, first: first, second: second))
      }
      merges[start...].sort { ($0.first, $0.second) < ($1.first, $1.second) }
    }
    // The sort is not stable: pieces of one score keep their order by number.
    let order = merges.indices.sorted { left, right in
      let (one, other) = (merges[left], merges[right])
      return one.score != other.score ? one.score > other.score : left < right
    }
    return order.map { merges[$0] }
  }

  // MARK: - tokenizer.model

  /// A `ModelProto` with the pieces, their scores and types, and of the specifications what changes the result.
  func model() -> [UInt8] {
    var writer = ProtobufWriter()
    let count = pieceCount
    for id in 0..<count {
      var piece = ProtobufWriter()
      piece.bytes(1, pieceText(id))
      piece.float(2, scores[id])
      let type = id == unknown ? .unknown : vocabulary.types[id] == .unknown ? .control : vocabulary.types[id]
      if type != .normal { piece.varint(3, UInt64(type.rawValue)) }
      writer.bytes(1, piece.output)
    }
    var trainer = ProtobufWriter()
    trainer.varint(3, SentencePieceModel.Algorithm.bpe.rawValue)
    trainer.varint(4, UInt64(count))
    trainer.varint(35, fallsBackToBytes ? 1 : 0)
    for (field, type) in [(40, "unk"), (41, "bos"), (42, "eos"), (43, "pad")] {
      // Absent is −1, as a negative varint.
      let id = type == "unk" ? unknown : vocabulary.id(type).flatMap { $0 < count ? $0 : nil }
      trainer.varint(field, UInt64(bitPattern: Int64(id ?? -1)))
      if let id { trainer.bytes(field + 5, pieceText(id)) }
    }
    writer.bytes(2, trainer.output)
    var normalizer = ProtobufWriter()
    normalizer.bytes(1, Array("identity".utf8))
    normalizer.varint(3, prependsSpace ? 1 : 0)
    normalizer.varint(4, 0)
    normalizer.varint(5, 1)
    writer.bytes(3, normalizer.output)
    return writer.output
  }

  private func pieceText(_ id: Int) -> [UInt8] {
    let token = vocabulary.tokens[id]
    return vocabulary.types[id] == .userDefined ? token.replacing([0x20], with: TokenTable.spaceMark) : token
  }

  /// Without the last tokens, which were added to the pieces by other files, with a score of their own.
  private var pieceCount: Int {
    var count = vocabulary.tokens.count
    while count > unknown + 1 {
      let last = count - 1
      let type = vocabulary.types[last]
      let isAdded = scores[last] == Self.addedScore && (type == .control || type == .userDefined)
      guard vocabulary.isPadding(last) || isAdded else { break }
      count -= 1
    }
    return count
  }
}
