import Bytes
import JSON
import PyTorch
import Tensors
import Testing

@testable import ModelFamilies

/// What `params.json` and the names and shapes of the first part make of a model, by hand.
@Suite struct MetaPlanTests {
  private static let plain = """
    {"dim": 16, "n_layers": 1, "n_heads": 4, "n_kv_heads": 2, "multiple_of": 8, "norm_eps": 1e-06, "vocab_size": -1}
    """
  /// int(8 · 16 / 3) is 42: up to a multiple of 8 it is 48.
  private static let mlp = 48

  /// Of so many parts, tokens divided by columns as up to Llama 2.
  private static func tensors(parts: Int = 1, splitsTokens: Bool = false) -> [(String, [Int])] {
    [
      ("tok_embeddings.weight", splitsTokens ? [32 / parts, 16] : [32, 16 / parts]), ("norm.weight", [16]),
      ("output.weight", [32 / parts, 16]), ("layers.0.attention.wq.weight", [16 / parts, 16]),
      ("layers.0.attention.wk.weight", [max(4, 8 / parts), 16]),
      ("layers.0.attention.wv.weight", [max(4, 8 / parts), 16]), ("layers.0.attention.wo.weight", [16, 16 / parts]),
      ("layers.0.feed_forward.w1.weight", [mlp / parts, 16]), ("layers.0.feed_forward.w2.weight", [16, mlp / parts]),
      ("layers.0.feed_forward.w3.weight", [mlp / parts, 16]), ("layers.0.attention_norm.weight", [16]),
      ("layers.0.ffn_norm.weight", [16]), ("layers.0.attention.inner_attention.rope.freqs", [2]),
    ]
  }

  private static func plan(
    _ params: String? = nil, _ tensors: [(String, [Int])], parts: Int = 1, tied: [[Int]] = []
  ) throws -> MetaPlan {
    let parameters = try MetaParameters(JSONValue(parsing: Array((params ?? plain).utf8)))
    let infos = try tensors.map { try TensorInfo(name: TensorName($0.0), type: .bf16, shape: $0.1) }
    return try MetaPlan(parameters, .init(tensors: infos, tied: tied, fileCount: parts))
  }

  /// `params.json` with some members more, or others; null takes one away.
  private static func params(_ members: String) throws -> String {
    var object = try JSONValue(parsing: Array(plain.utf8))
    for (key, value) in try JSONValue(parsing: Array(members.utf8)).object?.members ?? [] {
      object[key] = value.isNull ? Optional<JSONValue>.none : value
    }
    return object.text(.compact)
  }

  @Test func names() throws {
    let plan = try Self.plan(nil, Self.tensors())
    #expect(
      plan.weights.map(\.name.string) == [
        "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight", "model.layers.0.self_attn.q_proj.weight",
        "model.layers.0.self_attn.k_proj.weight", "model.layers.0.self_attn.v_proj.weight",
        "model.layers.0.self_attn.o_proj.weight", "model.layers.0.mlp.gate_proj.weight",
        "model.layers.0.mlp.down_proj.weight", "model.layers.0.mlp.up_proj.weight",
        "model.layers.0.input_layernorm.weight", "model.layers.0.post_attention_layernorm.weight",
      ])
    #expect(plan.weights.map(\.source) == (0..<12).map(PlannedWeight.Source.stored))
    #expect(plan.weights.filter { $0.transform != .none }.map(\.transform) == [.unpermuteHeads(4), .unpermuteHeads(2)])
    #expect(plan.weights[3].transform == .unpermuteHeads(4) && plan.weights[4].transform == .unpermuteHeads(2))
  }

  @Test(arguments: [1, 2, 4]) func joinings(parts: Int) throws {
    let plan = try Self.plan(nil, Self.tensors(parts: parts), parts: parts)
    #expect(plan.wholes.map(\.part) == Array(0..<12))
    #expect(plan.wholes[0].shape == [32, 16] && plan.wholes[0].joining == (parts == 1 ? .rows : .columns))
    #expect(plan.wholes[4].shape == [8, 16] && plan.wholes[4].joining == .heads(2))
    #expect(plan.wholes[6].joining == .columns && plan.wholes[8].joining == .columns)
    #expect(plan.wholes[1].joining == .copies && plan.wholes[7].joining == .rows)
    let new = try Self.plan(nil, Self.tensors(parts: parts, splitsTokens: true), parts: parts)
    #expect(new.wholes[0].joining == .rows && new.wholes[0].shape == [32, 16])
  }

  @Test(arguments: [
    (#"{}"#, "llama", 10000.0, 4096, 2), (#"{"rope_theta": 1e6}"#, "llama", 1e6, 16384, 2),
    (#"{"rope_theta": 500000.0}"#, "llama", 500_000, 8192, 2),
    (#"{"rope_theta": 500000.0, "use_scaled_rope": true}"#, "llama", 500_000, 131_072, 2),
    (#"{"max_seq_len": 64}"#, "llama", 10000.0, 4096, 2),
    (#"{"hidden_dim": 48, "max_seq_len": 64}"#, "mistral", 10000.0, 64, 2),
    (#"{"hidden_dim": 48, "vision_encoder": null, "moe": null}"#, "mistral", 10000.0, 32768, 2),
  ]) func configurations(members: String, type: String, theta: Double, context: Int, end: Int) throws {
    let config = try Self.plan(Self.params(members), Self.tensors()).config
    #expect(config["model_type"]?.string == type && config["rope_theta"]?.double == theta)
    #expect(config["max_position_embeddings"]?.int == context && config["eos_token_id"]?.int == end)
    #expect(config["rope_parameters"]?["rope_theta"]?.double == theta && config["vocab_size"]?.int == 32)
    #expect(config["intermediate_size"]?.int == Self.mlp && config["rms_norm_eps"]?.number?.text == "1e-06")
    #expect(config["tie_word_embeddings"]?.bool == false)
  }

  @Test func tokensOfLlama3() throws {
    var tensors = Self.tensors()
    (tensors[0].1, tensors[2].1) = ([128_256, 16], [128_256, 16])
    let config = try Self.plan(Self.params(#"{"rope_theta": 500000.0}"#), tensors).config
    #expect(config["bos_token_id"]?.int == 128_000 && config["eos_token_id"]?.int == 128_001)
  }

  @Test func scaling() throws {
    let scaled = try Self.params(#"{"rope_theta": 500000.0, "use_scaled_rope": true}"#)
    func factor(_ plan: MetaPlan) -> Double? { plan.config["rope_scaling"]?["factor"]?.double }
    #expect(try factor(Self.plan(scaled, Self.tensors())) == 8)
    // The embedding under two names, and under one.
    let tied = try Self.plan(scaled, Self.tensors(), tied: [[0, 2]])
    #expect(factor(tied) == 32 && tied.config["tie_word_embeddings"]?.bool == true && tied.weights.count == 11)
    let lacking = try Self.plan(scaled, Self.tensors().filter { $0.0 != "output.weight" })
    #expect(factor(lacking) == 32 && lacking.weights == tied.weights)
    let stated = try Self.params(
      #"{"rope_theta": 500000.0, "use_scaled_rope": true, "rope_scaling_factor": 16, "vocab_size": 32}"#)
    #expect(try factor(Self.plan(stated, Self.tensors())) == 16)
    #expect(try factor(Self.plan(nil, Self.tensors())) == nil)
  }

  @Test func warnings() throws {
    let plan = try Self.plan(Self.params(#"{"something": 1, "max_batch_size": 4}"#), Self.tensors())
    #expect(
      plan.warnings.map(\.description) == [
        "'params.json' does not say all that config.json does; taken as such models have it: "
          + "max_position_embeddings 4096",
        "'params.json': passed over, since its meaning is not known: 'something'",
      ])
    #expect(try Self.plan(Self.params(#"{"max_position_embeddings": 64}"#), Self.tensors()).warnings.isEmpty)
  }

  // MARK: - Refusals

  @Test(arguments: [
    (#"{"dim": null}"#, "has no 'dim'"), (#"{"n_layers": 0}"#, "n_layers: found 0, expected a whole number"),
    (#"{"n_heads": 1e3}"#, "n_heads: found 1e3"),
    (#"{"dim": 99999999999999999999}"#, "dim: found 99999999999999999999"),
    (#"{"n_heads": 3}"#, "dim 16 is not divided by n_heads 3"), (#"{"n_kv_heads": 3}"#, "which do not go together"),
    (#"{"head_dim": 3}"#, "which do not go together"), (#"{"norm_eps": "1e-5"}"#, "norm_eps: expected a number"),
    (#"{"norm_eps": 0}"#, "norm_eps: expected a number"), (#"{"vocab_size": 0}"#, "vocab_size: found 0"),
    (#"{"rope_theta": -1}"#, "rope_theta: expected a number above 0"),
    (#"{"ffn_dim_multiplier": 1e12}"#, "ffn_dim_multiplier: gives an MLP of"),
    (#"{"ffn_dim_multiplier": "1"}"#, "ffn_dim_multiplier: expected a number above 0"),
  ]) func malformed(members: String, message: String) throws {
    let failure = try #require(throws: Failure.self) { try Self.plan(Self.params(members), Self.tensors()) }
    #expect(failure.code == .malformed && failure.file == "params.json")
    #expect(failure.message.contains(message), "\(failure.message)")
  }

  @Test(arguments: [
    (#"{"moe": {"num_experts": 8}}"#, "is a mixture of experts"), (#"{"vision_chunk_size": 448}"#, "a vision encoder"),
    (#"{"quantization": {"qformat_weight": "fp8_e4m3"}}"#, "is quantized"), (#"{"use_biases": true}"#, "has biases"),
    (#"{"yarn": {"factor": 4}}"#, "YaRN"), (#"{"sliding_window": [4096, null]}"#, "one window for all layers"),
  ]) func otherKinds(members: String, message: String) throws {
    let failure = try #require(throws: Failure.self) { try Self.plan(Self.params(members), Self.tensors()) }
    #expect(failure.code == .unsupported && failure.file == "params.json")
    #expect(failure.message.contains(message), "\(failure.message)")
    // What is turned off makes no other model.
    let names = try JSONValue(parsing: Array(members.utf8)).object?.members.map(\.key) ?? []
    for name in names where name != "sliding_window" {
      _ = try Self.plan(Self.params("{\"\(name)\": false}"), Self.tensors())
    }
  }

  struct Row: CustomTestStringConvertible, Sendable {
    let testDescription: String
    let tensor: String
    let message: String
    var code = Failure.Code.malformed
    var parts = 1
    let change: @Sendable (inout [(String, [Int])]) -> Void
  }

  static let rows = [
    Row(testDescription: "no embedding", tensor: "tok_embeddings.weight", message: "is missing") { $0.removeFirst() },
    Row(testDescription: "no norm", tensor: "norm.weight", message: "is missing") { $0.remove(at: 1) },
    Row(testDescription: "no keys", tensor: "layers.0.attention.wk.weight", message: "is missing") { $0.remove(at: 4) },
    Row(
      testDescription: "a layer too many", tensor: "layers.1.ffn_norm.weight",
      message: "is of layer 1, by params.json there are 1 layers"
    ) { $0.append(("layers.1.ffn_norm.weight", [16])) },
    Row(
      testDescription: "a name that is not known", tensor: "layers.0.attention.q_norm.weight",
      message: "is no tensor of",
      code: .unsupported
    ) { $0.append(("layers.0.attention.q_norm.weight", [4])) },
    Row(
      testDescription: "a name of transformers", tensor: "model.norm.weight", message: "is no tensor of",
      code: .unsupported
    ) { $0.append(("model.norm.weight", [16])) },
    Row(
      testDescription: "a wider MLP", tensor: "layers.0.feed_forward.w1.weight",
      message: "has shape [56, 16]; by params.json it is [48, 16]"
    ) { $0[7].1 = [56, 16] },
    Row(
      testDescription: "keys of all heads", tensor: "layers.0.attention.wk.weight",
      message: "has shape [16, 16]; by params.json it is [8, 16]"
    ) { $0[4].1 = [16, 16] },
    Row(
      testDescription: "half of two parts", tensor: "layers.0.attention.wo.weight",
      message: "has shape [16, 4] in each of 2 parts, together [16, 8]; by params.json it is [16, 16]", parts: 2
    ) { $0[6].1 = [16, 4] },
    Row(
      testDescription: "no matrix", tensor: "tok_embeddings.weight", message: "has shape [512]; by params.json it is"
    ) { $0[0].1 = [512] },
    Row(
      testDescription: "a vocabulary beyond all sizes", tensor: "output.weight", message: "by params.json it is"
    ) { $0[2].1 = [1 << 40, 16] },
  ]

  @Test(arguments: rows) func rejected(row: Row) throws {
    var tensors = Self.tensors(parts: row.parts)
    _ = try Self.plan(nil, tensors, parts: row.parts)
    row.change(&tensors)
    let failure = try #require(throws: Failure.self) { try Self.plan(nil, tensors, parts: row.parts) }
    #expect(failure.code == row.code && failure.tensor == row.tensor)
    #expect(failure.message.contains(row.message), "\(failure.message)")
  }

  /// Sizes of real models' MLPs.
  @Test(arguments: [
    (4096, "256", "null", 11008), (5120, "256", "null", 13824), (8192, "4096", "1.3", 28672),
    (4096, "1024", "1.3", 14336), (2048, "256", "1.5", 8192), (3072, "256", "1.0", 8192), (8192, "256", "1.0", 22016),
  ]) func widths(hidden: Int, multiple: String, factor: String, width: Int) throws {
    let params = """
      {"dim": \(hidden), "n_layers": 1, "n_heads": 32, "norm_eps": 1e-5, "multiple_of": \(multiple), \
      "ffn_dim_multiplier": \(factor)}
      """
    #expect(try MetaParameters(JSONValue(parsing: Array(params.utf8))).feedForward == width)
  }
}
