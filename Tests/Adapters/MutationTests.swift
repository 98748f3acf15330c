import Bytes
import Foundation
import TestSupport
import Testing

@testable import Adapters

/// Damaged adapters are refused or merged; nothing traps.
@Suite struct MutationTests {
  /// Adapters that use what there is to use.
  static let builders: [AdapterBuilder] = {
    let linear = AdapterBuilder.linear("model.q", [4, 6], rank: 2)
    var plain = AdapterBuilder(
      linear + [
        .adapter("model.q.lora_B.bias", [4], [1, 2, 3, 4]),
        .adapter("lm_head.weight", [8, 4], wholeNumbers(32, seed: 1)),
        .adapter("model.embed_tokens.token_adapter.trainable_tokens_delta", [2, 4], wholeNumbers(8, seed: 2)),
      ], rank: 2)
    plain.set("trainable_token_indices", "{\"embed_tokens\": [3, 7]}")
    plain.set("alpha_pattern", "{\"(q|k)$\": 4}")
    var dora = AdapterBuilder(
      linear + [
        .adapter("model.q.lora_magnitude_vector", [4], [1, 2, 3, 4]),
        .adapter("model.embed_tokens.lora_embedding_A", [2, 8], wholeNumbers(16, seed: 3)),
        .adapter("model.embed_tokens.lora_embedding_B", [4, 2], wholeNumbers(8, seed: 4)),
        .adapter("model.embed_tokens.lora_magnitude_vector", [4], [1, 2, 3, 4]),
      ], rank: 2)
    dora.set("use_dora", "true")
    var blocks = AdapterBuilder(
      [
        .adapter("model.q.lora_A.weight", [2, 3], wholeNumbers(6, seed: 5)),
        .adapter("model.q.lora_B.weight", [4, 2], wholeNumbers(8, seed: 6)),
      ], rank: 2)
    blocks.set("use_bdlora", "{\"nblocks\": 2, \"target_modules_bd_a\": [\"q\"], \"target_modules_bd_b\": []}")
    var groups = blocks
    groups.set("use_bdlora", nil)
    groups.set("use_qalora", "true")
    groups.set("qalora_group_size", "2")
    var experts = AdapterBuilder(
      [
        .adapter("model.experts.lora_A.weight", [4, 3], wholeNumbers(12, seed: 7)),
        .adapter("model.experts.lora_B.weight", [5, 4], wholeNumbers(20, seed: 8)),
      ], rank: 2)
    experts.set("target_parameters", "[\"experts.up_proj\"]")
    experts.set("layer_replication", "[[0, 1]]")
    return [plain, dora, blocks, groups, experts]
  }()

  static let base: [SafetensorsBuilder.Tensor] = [
    .of("model.embed_tokens.weight", [8, 4], wholeNumbers(32, seed: 9), as: "BF16"),
    .of("model.q.weight", [4, 6], wholeNumbers(24, seed: 10)), .of("model.q.bias", [4], [0, 0, 0, 0]),
    .of("model.experts.up_proj", [2, 5, 3], wholeNumbers(30, seed: 11), as: "F16"),
    .of("model.layers.0.norm.weight", [1], [1]),
  ]

  static let count = Int(ProcessInfo.processInfo.environment["NIBBLE_MUTATIONS"] ?? "") ?? 400

  @Test(arguments: builders.indices)
  func mutated(_ number: Int) throws {
    var merging = try Merging(Self.base)
    merging.isTied = true
    let builder = Self.builders[number]
    _ = try merging.merged(builder)
    let config = Array(builder.json.utf8)
    let weights = SafetensorsBuilder(builder.tensors).bytes
    let data = builder.tensors.reduce(0) { $0 + $1.data.count }
    var mutator = Mutator(seed: UInt64(number + 1))
    var merged = 0
    for index in 0..<Self.count {
      var damaged = builder
      if index % 2 == 0 {
        damaged.config = mutator.mutated(config)
      } else {
        let bytes = mutator.mutated(weights)
        damaged.weights = index % 4 == 1 ? Mutator.withFittingLength(bytes, data: data) : bytes
      }
      do {
        let plan = try merging.plan(damaged)
        for (index, info) in plan.source.tensors.enumerated() {
          var bytes = [UInt8](repeating: 0, count: info.byteCount)
          try plan.source.read(index, at: 0, into: &bytes)
        }
        merged += 1
      } catch let failure as Failure {
        #expect([.malformed, .unsupported, .missing].contains(failure.code), "\(failure)")
        #expect(!failure.message.isEmpty)
      }
    }
    #expect(merged > 0)
  }
}
