import Bytes
import Testing

@testable import Tokenizers

/// Hostile bytes of a `tokenizer.model`.
struct SentencePieceModelTests {
  /// `<unk>` of type 2, and `a` with score 1.
  static let valid: [UInt8] =
    [0x0A, 9, 0x0A, 5] + Array("<unk>".utf8) + [0x18, 2] + [0x0A, 8, 0x0A, 1, 0x61, 0x15, 0, 0, 0x80, 0x3F]

  @Test func theValidOne() throws {
    let model = try SentencePieceModel(parsing: Self.valid)
    #expect(model.types == [.unknown, .normal])
    #expect(model.scores == [0, 1])
    #expect(model.pieces[1] == [0x61])
  }

  @Test func everyPrefixAndEveryByte() {
    for count in 0..<Self.valid.count where count != 11 {
      #expect(throws: Failure.self) { try SentencePieceModel(parsing: Array(Self.valid.prefix(count))) }
    }
    for offset in Self.valid.indices {
      for value in UInt8.min...UInt8.max {
        var bytes = Self.valid
        bytes[offset] = value
        _ = try? SentencePieceModel(parsing: bytes)
      }
    }
  }

  @Test(
    arguments: [
      [0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01], [0x0A, 0x80], [0x0A, 2, 0x0A, 0],
      [0x0A, 3, 0x0A, 1, 0xFF], [0x0A, 5, 0x0A, 1, 0x61, 0x18, 7], [0x08, 1], [0x0B], [0x02, 0],
      [0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F],
    ] as [[UInt8]])
  func aBadOneIsMalformed(_ bytes: [UInt8]) {
    let failure = #expect(throws: Failure.self) { try SentencePieceModel(parsing: bytes) }
    #expect(failure?.code == .malformed)
  }
}
