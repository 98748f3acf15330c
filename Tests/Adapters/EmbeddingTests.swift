import Bytes
import TestSupport
import Testing

@testable import Adapters

/// Embeddings: deltas, rows, new sizes, and what becomes of an output embedding that was tied.
@Suite struct EmbeddingTests {
  private static let input = "model.embed_tokens.weight"
  private static let head = "lm_head.weight"
  /// Three tokens, two wide.
  private static let embedding = SafetensorsBuilder.Tensor.of(input, [3, 2], [1, 2, 3, 4, 5, 6])
  private static let output = SafetensorsBuilder.Tensor.of(head, [3, 2], [10, 20, 30, 40, 50, 60])

  private static let delta: [SafetensorsBuilder.Tensor] = [
    .adapter("model.embed_tokens.lora_embedding_A", [1, 3], [1, 0, -1]),
    .adapter("model.embed_tokens.lora_embedding_B", [2, 1], [10, 20]),
  ]
  private static let headDelta: [SafetensorsBuilder.Tensor] = [
    .adapter("lm_head.lora_A.weight", [1, 2], [1, 0]), .adapter("lm_head.lora_B.weight", [3, 1], [100, 0, 0]),
  ]
  private static let merged: [Float] = [11, 22, 3, 4, -5, -14]

  private func adapter(_ tensors: [SafetensorsBuilder.Tensor], ties: Bool = false, tokens: String? = nil)
    -> AdapterBuilder
  {
    var builder = AdapterBuilder(tensors, rank: 1, alpha: 1)
    if ties { builder.set("ensure_weight_tying", "true") }
    if let tokens { builder.set("trainable_token_indices", tokens) }
    return builder
  }

  private func tied(_ base: [SafetensorsBuilder.Tensor] = [embedding]) throws -> Merging {
    var merging = try Merging(base)
    merging.isTied = true
    return merging
  }

  @Test func untied() throws {
    let merged = try Merging([Self.embedding, Self.output]).merged(adapter(Self.delta))
    #expect(merged[Self.input] == Self.merged && merged[Self.head] == [10, 20, 30, 40, 50, 60])
    #expect(!merged.plan.staysTied && merged.plan.vocabularySize == nil && merged.plan.warnings.isEmpty)
  }

  // MARK: - Tied

  /// The head keeps the base's values, under a name of its own.
  @Test func inputAlone() throws {
    let merged = try tied().merged(adapter(Self.delta))
    #expect(merged.names == [Self.input, Self.head] && !merged.plan.staysTied)
    #expect(merged[Self.input] == Self.merged && merged[Self.head] == [1, 2, 3, 4, 5, 6])
    #expect(merged.plan.warnings.count == 1 && merged.plan.warnings[0].contains("tie_word_embeddings is false"))
  }

  @Test func inputAloneButTiedOnPurpose() throws {
    let merged = try tied().merged(adapter(Self.delta, ties: true))
    #expect(merged.names == [Self.input] && merged.plan.staysTied && merged[Self.input] == Self.merged)
    #expect(merged.plan.warnings.isEmpty)
  }

  @Test func headAlone() throws {
    let merged = try tied().merged(adapter(Self.headDelta))
    #expect(merged[Self.input] == [1, 2, 3, 4, 5, 6] && merged[Self.head] == [101, 2, 3, 4, 5, 6])
    #expect(!merged.plan.staysTied)
  }

  @Test func both() throws {
    let merged = try tied().merged(adapter(Self.delta + Self.headDelta))
    #expect(merged[Self.input] == Self.merged && merged[Self.head] == [101, 2, 3, 4, 5, 6] && !merged.plan.staysTied)
  }

  /// A copy of the head in the file goes along with the embedding, or is left behind with the base's values.
  @Test func storedCopy() throws {
    let copy = SafetensorsBuilder.Tensor.of(Self.head, [3, 2], [1, 2, 3, 4, 5, 6])
    let following = try tied([Self.embedding, copy]).merged(adapter(Self.delta, ties: true))
    #expect(following[Self.head] == Self.merged && following[Self.input] == Self.merged && following.plan.staysTied)
    let apart = try tied([Self.embedding, copy]).merged(adapter(Self.delta))
    #expect(apart[Self.head] == [1, 2, 3, 4, 5, 6] && apart[Self.input] == Self.merged && !apart.plan.staysTied)
    let rows = try tied([Self.embedding, copy]).merged(
      adapter([.adapter("model.embed_tokens.token_adapter.trainable_tokens_delta", [1, 2], [7, 8])], tokens: "[1]"))
    #expect(rows[Self.head] == [1, 2, 7, 8, 5, 6] && rows[Self.input] == [1, 2, 7, 8, 5, 6] && rows.plan.staysTied)
  }

  @Test func otherAdaptersDoNotTouchIt() throws {
    let layer = SafetensorsBuilder.Tensor.of("model.q.weight", [1, 1], [1])
    let merged = try tied([Self.embedding, layer]).merged(
      adapter([.adapter("model.q.lora_A.weight", [1, 1], [1]), .adapter("model.q.lora_B.weight", [1, 1], [1])]))
    #expect(merged.names == [Self.input, "model.q.weight"] && merged.plan.staysTied && merged["model.q.weight"] == [2])
  }

  // MARK: - Rows

  @Test(arguments: ["[2, 0]", "{\"embed_tokens\": [2, 0]}", "{\"other\": [1], \"embed_tokens\": [2, 0]}"])
  func rows(_ tokens: String) throws {
    let merged = try Merging([Self.embedding, Self.output]).merged(
      adapter(
        [.adapter("model.embed_tokens.token_adapter.trainable_tokens_delta", [2, 2], [7, 8, 9, 10])], tokens: tokens))
    // Absolute values, whatever they are called.
    #expect(merged[Self.input] == [9, 10, 3, 4, 7, 8] && merged[Self.head] == [10, 20, 30, 40, 50, 60])
    #expect(merged.plan.changes.map(\.scale) == [nil])
    let change = try #require(merged.plan.source.relativeChange(of: 0))
    #expect(abs(change - ((64.0 + 64 + 4 + 4) / 91).squareRoot()) < 1e-6)
  }

  @Test func rowsAndDelta() throws {
    let rows = SafetensorsBuilder.Tensor.adapter(
      "model.embed_tokens.token_adapter.trainable_tokens_delta", [1, 2], [7, 8])
    let merged = try Merging([Self.embedding]).merged(adapter(Self.delta + [rows], tokens: "[0]"))
    #expect(merged[Self.input] == [7, 8, 3, 4, -5, -14])
  }

  @Test func rowsOfTwoAdapters() throws {
    func rows(_ token: Int, _ values: [Float]) -> AdapterBuilder {
      adapter(
        [.adapter("model.embed_tokens.token_adapter.trainable_tokens_delta", [1, 2], values)], tokens: "[\(token)]")
    }
    let merging = try Merging([Self.embedding])
    #expect(try merging.merged(rows(0, [7, 8]), rows(2, [9, 9]))[Self.input] == [7, 8, 3, 4, 9, 9])
    let failure = #expect(throws: Failure.self) { try merging.plan(rows(1, [7, 8]), rows(1, [7, 8])) }
    #expect(failure?.message == "has a row for token 1, as 'adapter0' has")
  }

  // MARK: - Whole

  @Test func resized() throws {
    let four = (1...8).map(Float.init)
    let both = adapter([
      .adapter("model.embed_tokens.weight", [4, 2], four), .adapter("lm_head.weight", [4, 2], four.reversed()),
    ])
    let merged = try Merging([Self.embedding, Self.output]).merged(both)
    #expect(merged[Self.input] == four && merged[Self.head] == four.reversed() && merged.plan.vocabularySize == 4)
    let failure = #expect(throws: Failure.self) {
      try Merging([Self.embedding, Self.output]).plan(adapter([.adapter("model.embed_tokens.weight", [4, 2], four)]))
    }
    #expect(failure?.message.contains("has 4 tokens, the output embedding 'lm_head.weight' 3") == true)
  }

  /// Saved once for both, or twice with the same values: it stays tied.
  @Test(arguments: [1, 2])
  func resizedAndTied(_ copies: Int) throws {
    let four = (1...8).map(Float.init)
    let tensors = ["model.embed_tokens.base_layer.weight", "lm_head.weight"].prefix(copies).map {
      SafetensorsBuilder.Tensor.adapter($0, [4, 2], four)
    }
    let merged = try tied().merged(adapter(Array(tensors)))
    #expect(merged.plan.staysTied && merged[Self.input] == four && merged.plan.vocabularySize == 4)
    #expect(merged[Self.head] == (copies == 2 ? four : nil))
  }

  @Test func replacedApart() throws {
    let merged = try tied().merged(
      adapter([
        .adapter("model.embed_tokens.weight", [3, 2], [0, 0, 0, 0, 0, 1]),
        .adapter("lm_head.modules_to_save.default.weight", [3, 2], [0, 0, 0, 0, 0, 2]),
      ]))
    #expect(!merged.plan.staysTied && merged[Self.input]?.last == 1 && merged[Self.head]?.last == 2)
  }

  @Test func replacedByTwo() throws {
    let whole = SafetensorsBuilder.Tensor.adapter("lm_head.weight", [3, 2], [0, 0, 0, 0, 0, 1])
    let other = SafetensorsBuilder.Tensor.adapter("lm_head.weight", [3, 2], [0, 0, 0, 0, 0, 2])
    let merged = try Merging([Self.embedding, Self.output]).merged(adapter([whole]), adapter([whole]))
    #expect(merged[Self.head] == [0, 0, 0, 0, 0, 1])
    let failure = #expect(throws: Failure.self) {
      try Merging([Self.embedding, Self.output]).plan(adapter([whole]), adapter([other]))
    }
    #expect(failure?.message == "replaces 'lm_head.weight', which 'adapter0' replaces too")
    #expect(failure?.tensor == "base_model.model.lm_head.weight")
  }
}
