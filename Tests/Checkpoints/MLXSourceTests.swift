import Bytes
import JSON
import Quantization
import Tensors
import TestSupport
import Testing
import Writing

@testable import Architectures
@testable import Checkpoints
@testable import ModelFamilies

/// Directories in MLX's groups, read as the models that they were made from.
@Suite struct MLXSourceTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  private typealias Tensor = SafetensorsBuilder.Tensor

  private func model(_ tensors: [Tensor], _ type: String, _ architecture: String, _ more: String) throws -> String {
    var model = TestModel(tensors)
    model.config = "{\"model_type\": \"\(type)\", \"architectures\": [\"\(architecture)\"], \(more)}"
    return try model.write(to: directory)
  }

  private func llama(_ tensors: [Tensor], _ quantization: String) throws -> String {
    try model(tensors, "llama", "LlamaForCausalLM", "\"quantization\": \(quantization)")
  }

  /// Reads a tensor in pieces of every kind and compares with the whole.
  private func expectPieces(_ source: any TensorSource, _ index: Int, _ whole: [UInt8]) throws {
    let width = source.tensors[index].type.bitWidth / 8
    var generator = SplitMix64(seed: 7)
    for _ in 0..<40 {
      let start = Int.random(in: 0...whole.count / width, using: &generator)
      let end = Int.random(in: start...whole.count / width, using: &generator)
      let range = start * width..<end * width
      #expect(try source.bytes(index, range) == Array(whole[range]), "\(range)")
    }
  }

  private func random(_ count: Int, _ seed: UInt64) -> [UInt8] {
    var generator = SplitMix64(seed: seed)
    return (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
  }

  /// Codes, scales and biases of BF16 in 4 bits, groups of 32.
  private func packed(_ module: String, _ shape: [Int], _ seed: UInt64) -> [Tensor] {
    let count = shape.reduce(1, *)
    let groups = shape.dropLast() + [(shape.last ?? 0) / 32]
    return [
      Tensor("\(module).weight", "U32", shape.dropLast() + [(shape.last ?? 0) / 8], random(count / 2, seed)),
      TestModel.tensor("\(module).scales", "BF16", Array(groups), seed: seed + 1),
      TestModel.tensor("\(module).biases", "BF16", Array(groups), seed: seed + 2),
    ]
  }

  private let four = "{\"bits\": 4, \"group_size\": 32}"

  // MARK: - Values

  /// Written out by hand: 3 bits, of which 8 codes fill 3 bytes, and numbers of one sign, two bits and one.
  @Test func golden() throws {
    let codes = (0..<4).flatMap { _ in [0x88, 0xC6, 0xFA] as [UInt8] }
    let levels: [UInt8] = [0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE]
    let path = try llama(
      [
        Tensor("a.weight", "U32", [1, 3], codes), Tensor("a.scales", "F32", [1, 1], [0, 0, 0x80, 0xBF]),
        Tensor("a.biases", "F32", [1, 1], [0, 0, 0xE0, 0x40]), Tensor("b.weight", "U32", [1, 4], levels + levels),
        Tensor("b.scales", "U8", [1, 1], [128]),
      ], "{\"bits\": 3, \"group_size\": 32, \"b\": {\"mode\": \"mxfp4\"}}")
    let source = try StoredModel(path: path).checkpoint
    let found = source.tensors.map { "\($0.name) \($0.type.name) \($0.shape)" }
    #expect(found == ["a.weight F32 [1, 32]", "b.weight BF16 [1, 32]"])
    let descending = (0..<32).map { Float(7 - $0 % 8) }
    #expect(try source.bytes(0) == TestModel.bytes(of: descending, as: "F32"))
    let doubled: [Float] = [0, 1, 2, 3, 4, 6, 8, 12]
    let expected = (0..<2).flatMap { _ in doubled + doubled.map { -$0 } }
    #expect(try source.bytes(1) == TestModel.bytes(of: expected, as: "BF16"))
    #expect([source.typeName(of: 0), source.typeName(of: 1)] == ["MLX-Q3", "MLX-MXFP4"])
  }

  @Test func pieces() throws {
    let path = try llama(packed("m", [37, 96], 3), four)
    let source = try StoredModel(path: path).checkpoint
    try expectPieces(source, 0, source.bytes(0))
  }

  /// Each expert is a part of the stack.
  @Test func experts() throws {
    let module = "model.layers.0.block_sparse_moe"
    let plain = TestModel.tensor("\(module).switch_mlp.down_proj.weight", "BF16", [3, 5, 7], seed: 9)
    let path = try model(
      packed("\(module).switch_mlp.up_proj", [3, 5, 64], 4) + [plain], "mixtral", "MixtralForCausalLM",
      "\"num_local_experts\": 3, \"quantization\": \(four)")
    let source = try StoredModel(path: path).checkpoint
    let stored = try StoredModel(stored: CheckpointFiles(path: path))
    let logical = try #require(try PackedTensors(stored.checkpoint, config: stored.config)).logical
    let stack = DequantizedSource(logical)
    for (name, shape) in [("w3", [5, 64]), ("w2", [5, 7])] {
      for number in 0..<3 {
        let index = try #require(source.index(of: TensorName("\(module).experts.\(number).\(name).weight")))
        #expect(source.tensors[index].shape == shape)
        let whole = try #require(stack.tensors.firstIndex { $0.shape.dropFirst() == shape[...] })
        let size = shape.reduce(2, *)
        let expected = try stack.bytes(whole, number * size..<(number + 1) * size)
        #expect(try source.bytes(index) == expected)
        try expectPieces(source, index, expected)
      }
    }
    #expect(source.tensors.count == 6)
    // Of 5 rows 64 codes of 4 bits, and two scales and biases each.
    #expect(source.storedByteCount(of: 0) == 5 * (32 + 4 + 4))
  }

  /// Weights of Conv1D lie `[inputs, outputs]`.
  @Test func transposed() throws {
    let path = try model(
      packed("model.h.0.attn.c_attn", [96, 32], 5) + packed("model.wte", [4, 32], 8), "gpt2", "GPT2LMHeadModel",
      "\"quantization\": \(four)")
    let source = try StoredModel(path: path).checkpoint
    let index = try #require(source.index(of: "transformer.h.0.attn.c_attn.weight"))
    #expect(source.tensors[index].shape == [32, 96] && source.index(of: "transformer.wte.weight") != nil)
    let stored = try StoredModel(stored: CheckpointFiles(path: path))
    let logical = try #require(try PackedTensors(stored.checkpoint, config: stored.config)).logical
    let values = DequantizedSource(logical)
    let lying = try values.bytes(try #require(values.tensors.firstIndex { $0.shape == [96, 32] }))
    var whole: [UInt8] = []
    for column in 0..<32 {
      for row in 0..<96 {
        let start = (row * 32 + column) * 2
        whole += lying[start..<start + 2]
      }
    }
    #expect(try source.bytes(index) == whole)
    try expectPieces(source, index, whole)
  }

  // MARK: - Names

  /// The way to MLX and back is none, in every class that is known.
  @Test(arguments: MLXFamily.all.map(\.modelType))
  func thereAndBack(_ type: String) throws {
    let family = try #require(MLXFamily.all.first { $0.modelType == type })
    let isGPT2 = type == "gpt2"
    var shapes: [String: [Int]] = [:]
    for name in isGPT2
      ? ["transformer.wte", "transformer.h.1.attn.c_attn", "transformer.h.1.ln_1"]
      : ["model.embed_tokens", "model.norm", "model.layers.1.self_attn.q_proj", "model.layers.1.mlp.gate"]
    {
      shapes[name] = name.contains("norm") || name.contains("ln_1") ? [64] : [192, 64]
    }
    for projection in family.experts?.projections.keys.sorted() ?? [] {
      for number in 0..<2 { shapes["model.layers.1.mlp.experts.\(number).\(projection)"] = [64, 32] }
    }
    if case .always = family.head { shapes["lm_head"] = [192, 64] }
    var tensors: [TensorInfo] = []
    for (module, shape) in shapes.sorted(by: { $0.key < $1.key }) {
      tensors.append(try TensorInfo(name: TensorName("\(module).weight"), type: .bf16, shape: shape))
      if MLXFamily.isPath(family.name(module), family.biased) {
        tensors.append(try TensorInfo(name: TensorName("\(module).bias"), type: .bf16, shape: [shape[0]]))
      }
    }
    var config: JSONValue = ["model_type": .string(type), "tie_word_embeddings": .bool(shapes["lm_head"] == nil)]
    if let experts = family.experts { config[experts.count] = 2 }
    let there = try MLXModel(
      tensors, config: config, configuration: ModelConfiguration(config),
      format: #require(GroupFormat(bits: 4, groupSize: 32)), unused: []
    ) { _ in false }
    let back = try family.originals(
      of: there.weights.map { try TensorInfo(name: $0.planned.name, type: .bf16, shape: $0.planned.shape) },
      config: config)
    #expect(Set(back.map { "\($0.name) \($0.shape)" }) == Set(tensors.map { "\($0.name) \($0.shape)" }))
  }

  /// Counts whose product overflows disagree with the codes, and trap nowhere.
  @Test func overflow() throws {
    for (words, groups) in [(1 << 58, 1), (1, 1 << 58), (1 << 62, 1 << 62)] {
      var builder = SafetensorsBuilder([
        Tensor("m.weight", "U32", [0, words], []), Tensor("m.scales", "BF16", [0, groups], []),
        Tensor("m.biases", "BF16", [0, groups], []),
      ])
      builder.metadata = nil
      let path = try directory.makeDirectory("\(words) \(groups)")
      try directory.write("\(words) \(groups)/model.safetensors", builder.bytes)
      let text = "{\"model_type\": \"llama\", \"quantization\": {\"bits\": 4, \"group_size\": 64}}"
      try directory.write("\(words) \(groups)/config.json", Array(text.utf8))
      let failure = try #require(throws: Failure.self) { _ = try StoredModel(path: path) }
      #expect(failure.code == .malformed && failure.tensor == "m.weight", "\(failure)")
    }
  }
}
