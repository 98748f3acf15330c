import Bytes
import FamilySupport
import GGUF
import JSON
import Tensors
import TestSupport
import Testing

@testable import ModelFamilies

/// GGUF metadata and tensors that have no Hugging Face form, each beside those that do and differ in that alone.
@Suite struct ReverseRefusalTests {
  private func file(_ name: String, isComplete: Bool = true) throws -> PlannedFile {
    let family = try #require(Family.all.first { $0.name == name })
    return try PlannedFile(try FamilyModel(family, isComplete: isComplete).plan())
  }

  struct Row: Sendable, CustomTestStringConvertible {
    let family: String
    let key: String
    let value: GGUFValue?
    let code: Failure.Code
    let message: String

    init(_ family: String, _ key: String, _ value: GGUFValue?, _ code: Failure.Code, _ message: String) {
      (self.family, self.key, self.value, self.code, self.message) = (family, key, value, code, message)
    }

    var testDescription: String { "\(family) \(key) \(value.map { "\($0)" } ?? "absent")" }
  }

  private static let rows: [Row] = [
    Row("llama", "general.type", .text("mmproj"), .unsupported, "general.type is 'mmproj'"),
    Row("llama", "general.architecture", .text("clip"), .unsupported, "architecture 'clip' has no Hugging Face form"),
    Row("llama", "general.architecture", .uint32(1), .malformed, "found uint32, expected a UTF-8 string"),
    Row("llama", "general.architecture", nil, .malformed, "'general.architecture' is missing"),
    Row("llama", "llama.block_count", nil, .malformed, "'llama.block_count' is missing"),
    Row("llama", "llama.block_count", .uint32(0), .malformed, "num_hidden_layers: found 0"),
    Row("llama", "llama.block_count", .uint32(1), .malformed, "is of layer 1, the model has 1"),
    Row("llama", "llama.block_count", .uint32(2_147_483_647), .malformed, "'blk.2.attn_norm.weight': is missing"),
    Row("llama", "llama.block_count", .uint64(.max), .malformed, "found uint64, expected a whole number"),
    Row("llama", "llama.block_count", .float32(2), .malformed, "found float32, expected a whole number"),
    Row("llama", "llama.embedding_length", .int64(.min), .malformed, "hidden_size: found"),
    Row("llama", "llama.attention.head_count", .uint32s([4, 4]), .malformed, "found array, expected a whole number"),
    Row("llama", "llama.attention.head_count", .uint32(0), .malformed, "num_attention_heads: found 0"),
    Row("llama", "llama.attention.head_count_kv", .uint32(3), .malformed, "3 does not divide"),
    Row("llama", "llama.attention.key_length", nil, .malformed, "'llama.attention.key_length' is missing"),
    Row("llama", "llama.attention.value_length", .uint32(4), .unsupported, "found 4, expected the key length 8"),
    Row("llama", "llama.rope.dimension_count", .uint32(4), .unsupported, "found 4, llama models turn all 8 values"),
    Row("llama", "llama.rope.scaling.type", .text("longrope"), .unsupported, "expected none, linear or yarn"),
    Row("llama", "llama.rope.scaling.type", .text("linear"), .malformed, "'llama.rope.scaling.factor' is missing"),
    Row("llama", "llama.rope.freq_base", .float32(.nan), .malformed, "is not a finite number"),
    Row("llama", "llama.attention.layer_norm_rms_epsilon", nil, .malformed, "rms_epsilon' is missing"),
    Row("llama", "llama.vocab_size", .uint32(47), .malformed, "has 48 rows, metadata 'llama.vocab_size' is 47"),
    Row(
      "mixtral", "llama.expert_count", .uint32(2), .malformed,
      "has shape [3, 32], the metadata makes it [2, 32]"),
    Row("mixtral", "llama.expert_count", .uint32(1 << 20), .malformed, "allowed are 1 to 4096"),
    Row("mixtral", "llama.expert_count", nil, .unsupported, "is not a weight that llama models have"),
    Row("gpt2", "gpt2.feed_forward_length", .uint32(64), .unsupported, "found 64, expected four times 32"),
    Row("phi3", "phi3.rope.dimension_count", .uint32(9), .unsupported, "found 9, a head has"),
    Row("granite", "granite.attention.scale", nil, .malformed, "'granite.attention.scale' is missing"),
  ]

  @Test(arguments: rows) func metadata(_ row: Row) throws {
    var file = try file(row.family)
    _ = try file.plan()
    file.metadata[row.key] = row.value
    let found = try #require(failure { try file.plan() })
    #expect(found.code == row.code, "\(found.description)")
    #expect(found.description.contains(row.message), "\(found.description)")
  }

  @Test(arguments: [
    ("mm.0.weight", Failure.Code.unsupported, "is not a weight that llama models have"),
    ("v.blk.0.attn_q.weight", .unsupported, "is not a weight that llama models have"),
    ("blk.0.ffn_up_exps.weight", .unsupported, "is not a weight that llama models have"),
    ("blk.2.ffn_up.weight", .malformed, "is of layer 2, the model has 2"),
    ("blk.01.ffn_up.weight", .unsupported, "is not a weight"),
    ("output.weight", .malformed, "occurs twice"),
  ])
  func tensor(name: String, code: Failure.Code, message: String) throws {
    var file = try file("llama")
    _ = try file.plan()
    file.tensors.append(try GGUFTensor(name: TensorName(name), type: .f32, shape: [48, 32]))
    let found = try #require(failure { try file.plan() })
    #expect(found.code == code && found.tensor == name)
    #expect(found.message.contains(message), "\(found.message)")
  }

  @Test func biasesAreThereTogether() throws {
    var file = try file("llama")
    #expect(try file.plan().config["attention_bias"] == .bool(true))
    file.tensors.removeAll { $0.name.hasSuffix("attn_output.bias") }
    let found = try #require(failure { try file.plan() })
    #expect(found.code == .unsupported && found.tensor == "blk.0.attn_output.bias")
    file.tensors.removeAll { $0.name.hasSuffix(".bias") && $0.name.string.contains("attn") }
    #expect(try file.plan().config["attention_bias"] == .bool(false))
  }

  @Test func tokenNumbersComeFromTheTokenizer() throws {
    var file = try file("llama")
    file.metadata["tokenizer.ggml.bos_token_id"] = .uint32(5)
    file.metadata["tokenizer.ggml.eos_token_id"] = .uint32(48)
    let config = try file.plan().config
    #expect(config["bos_token_id"]?.int == 5)
    // Outside of the vocabulary.
    #expect(config["eos_token_id"] == .null)
    #expect(config["pad_token_id"] == .null)
  }

  /// Llama 3's scaling is found again from its factors.
  @Test(arguments: [(8.0, 8192), (32.0, 8192), (8.0, 64), (4.0, 1024)])
  func scalingOfLlama3(factor: Double, context: Int) throws {
    var model = try FamilyModel(try #require(Family.all.first { $0.name == "llama" }))
    try model.set("rope_theta", "500000.0")
    try model.set(
      "rope_scaling",
      """
      {"rope_type": "llama3", "factor": \(factor), "low_freq_factor": 1.0, "high_freq_factor": 4.0,
       "original_max_position_embeddings": \(context)}
      """)
    let there = try model.plan()
    let file = try PlannedFile(there)
    let back = try file.plan()
    #expect(back.config["rope_scaling"]?["rope_type"]?.string == "llama3")
    let again = try planGGUF(config: back.config, tensors: model.tensors, directoryName: "model") { _ in nil }
    guard case .values(let first) = there.weights[0].source, case .values(let second) = again.weights[0].source else {
      Issue.record("there are no factors")
      return
    }
    #expect(zip(first, second).allSatisfy { abs($0 - $1) <= 1e-5 * $0 })
    // Factors of no such scaling, too many, and none that is a number.
    for values in [[1, 2, 1, 8], [1, 1, 1, 1, 1], [1, .nan, 1, 1], [1, 0, 1, 1]] as [[Float]] {
      let found = failure {
        try planHuggingFace(metadata: file.metadata, tensors: file.tensors) { _ in values }
      }
      #expect(found?.tensor == "rope_freqs.weight", "\(values)")
    }
  }

  /// Metadata with another value for any key is refused or planned; nothing traps.
  @Test func changedMetadata() throws {
    let values: [GGUFValue?] = [
      nil, .uint32(0), .uint32(.max), .int32(-1), .uint64(.max), .int64(.min), .float32(.nan), .float64(1e300),
      .bool(false), .text(""), .string([0xFF]), .uint32s([1, 2]), .strings([]),
    ]
    for family in Family.all {
      let file = try file(family.name)
      for (key, _) in file.metadata.pairs {
        for value in values {
          var changed = file
          changed.metadata[key] = value
          _ = try? changed.plan()
        }
      }
    }
  }
}
