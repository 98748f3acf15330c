import Bytes

/// The type of a token of a SentencePiece model, or of a GGUF vocabulary. The numbers are those of both formats.
enum TokenType: Int32, Sendable {
  case normal = 1
  case unknown = 2
  case control = 3
  case userDefined = 4
  case unused = 5
  case byte = 6
}

/// `tokenizer.model`: the pieces of a SentencePiece `ModelProto`, and what of its specifications changes the result.
struct SentencePieceModel: Sendable {
  /// `trainer_spec.model_type`.
  enum Algorithm: UInt64, Sendable {
    case unigram = 1
    case bpe, word, character
  }

  private(set) var pieces = ByteStrings()
  private(set) var scores: [Float] = []
  private(set) var types: [TokenType] = []
  private(set) var algorithm = Algorithm.unigram
  private(set) var addsDummyPrefix = true
  private(set) var removesExtraWhitespace = true

  static let file = "tokenizer.model"

  /// - Throws: `malformed` for whatever is not a model of SentencePiece, with the offset.
  init(parsing bytes: [UInt8]) throws(Failure) {
    do throws(Failure) {
      var reader = ProtobufReader(bytes)
      while let (number, value, offset) = try reader.field() {
        switch number {
        case 1: try readPiece(Self.message(value, "piece \(types.count)", offset, reader), reader)
        case 2: try readTrainer(Self.message(value, "trainer_spec", offset, reader), reader)
        case 3: try readNormalizer(Self.message(value, "normalizer_spec", offset, reader), reader)
        default: break
        }
      }
      guard !types.isEmpty else { throw Failure(.malformed, "is no SentencePiece model: it has no pieces") }
    } catch {
      let beginning = Array(bytes.prefix(FileContent.length))
      let found = FileContent.signature(beginning) ?? FileContent.text(beginning)
      let failure = found.map { Failure(.malformed, "is no SentencePiece model: it is \($0)") }
      throw (failure ?? error).located(file: Self.file)
    }
  }

  private mutating func readPiece(_ range: Range<Int>, _ model: ProtobufReader) throws(Failure) {
    let subject = "piece \(types.count)"
    guard types.count < VocabularySize.limit else {
      throw model.failure("more than the \(VocabularySize.limit) pieces allowed", at: range.lowerBound)
    }
    var text: Range<Int>?
    var score: Float = 0
    var type = TokenType.normal
    var reader = ProtobufReader(model.bytes, range)
    while let (number, value, offset) = try reader.field() {
      switch (number, value) {
      case (1, .bytes(let range)): text = range
      case (2, .fixed32(let bits)): score = Float(bitPattern: bits)
      case (3, .varint(let number)):
        guard let known = Int32(exactly: number).flatMap(TokenType.init) else {
          throw reader.failure("\(subject) has type \(number), allowed are 1 to 6", at: offset)
        }
        type = known
      case (1...3, _): throw reader.failure("\(subject): field \(number) is \(value.name)", at: offset)
      default: break
      }
    }
    guard let text, !text.isEmpty else { throw reader.failure("\(subject) has no text", at: range.lowerBound) }
    guard String(validating: model.bytes[text], as: UTF8.self) != nil else {
      throw reader.failure("\(subject) is not UTF-8", at: text.lowerBound)
    }
    guard !score.isNaN else { throw reader.failure("\(subject): its score is not a number", at: range.lowerBound) }
    pieces.append(model.bytes[text])
    scores.append(score)
    types.append(type)
  }

  private mutating func readTrainer(_ range: Range<Int>, _ model: ProtobufReader) throws(Failure) {
    var reader = ProtobufReader(model.bytes, range)
    while let (number, value, offset) = try reader.field() {
      guard number == 3 else { continue }
      guard case .varint(let number) = value, let algorithm = Algorithm(rawValue: number) else {
        throw reader.failure("trainer_spec.model_type is none of the numbers 1 to 4", at: offset)
      }
      self.algorithm = algorithm
    }
  }

  private mutating func readNormalizer(_ range: Range<Int>, _ model: ProtobufReader) throws(Failure) {
    var reader = ProtobufReader(model.bytes, range)
    while let (number, value, offset) = try reader.field() {
      guard number == 3 || number == 4 else { continue }
      guard case .varint(let flag) = value, flag <= 1 else {
        throw reader.failure("normalizer_spec: field \(number) is not a bool", at: offset)
      }
      if number == 3 { addsDummyPrefix = flag == 1 } else { removesExtraWhitespace = flag == 1 }
    }
  }

  private static func message(
    _ value: ProtobufReader.Value, _ subject: String, _ offset: Int, _ reader: ProtobufReader
  ) throws(Failure) -> Range<Int> {
    guard case .bytes(let range) = value else {
      throw reader.failure("\(subject) is \(value.name), expected a message", at: offset)
    }
    return range
  }
}
