import Bytes
import Tensors
import Testing

@testable import Architectures

private func matrix(_ name: String, _ type: ElementType = .bf16) throws -> TensorInfo {
  try TensorInfo(name: TensorName(name), type: type, shape: [64, 64])
}

private func plan(
  _ names: [String], _ architecture: String?, _ target: LoaderTarget = .transformers5, keep: [String] = []
) throws -> (dispositions: [String: Disposition], plan: WeightPlan) {
  let plan = planWeights(
    try names.map { try matrix($0) }, configuration: ModelConfiguration(architecture: architecture), target: target,
    keep: keep.map { Keep($0) })
  return (Dictionary(uniqueKeysWithValues: zip(names, plan.dispositions)), plan)
}

@Suite struct FallbackTests {
  @Test func unknownClassGoesByNames() throws {
    let (given, result) = try plan(
      [
        "model.embed_tokens.weight", "model.layers.0.attn.wqkv.weight", "model.layers.0.ffn.gate.weight",
        "model.layers.0.ffn.experts.3.up.weight", "model.layers.0.norm.weight", "lm_head.weight", "odd",
      ], "NovelForCausalLM")
    #expect(
      given == [
        "model.embed_tokens.weight": .keep(.notLinear), "model.layers.0.attn.wqkv.weight": .quantize,
        "model.layers.0.ffn.gate.weight": .keep(.router), "model.layers.0.ffn.experts.3.up.weight": .keep(.expert),
        "model.layers.0.norm.weight": .keep(.notLinear), "lm_head.weight": .keep(.outputEmbedding),
        "odd": .keep(.notLinear),
      ])
    #expect(result.skipModules == ["lm_head", "model.layers.0.ffn.experts.3.up", "model.layers.0.ffn.gate"])
    #expect(result.warnings.count == 1)
    #expect(result.warnings.first?.contains("NovelForCausalLM") == true)
    #expect(try plan(["a.experts.0.w.weight"], nil, .transformers4).dispositions["a.experts.0.w.weight"] == .quantize)
  }

  @Test func foreignNamesOfAKnownClassGoByNames() throws {
    let (given, result) = try plan(["tok_embeddings.weight", "blk.0.attention.wq.weight"], "LlamaForCausalLM")
    #expect(given["blk.0.attention.wq.weight"] == .quantize)
    #expect(given["tok_embeddings.weight"] == .keep(.notLinear))
    #expect(result.warnings.count == 1)
  }

  @Test func weightsTheClassDoesNotKnowStayAndAreListed() throws {
    let extra = "model.layers.0.mlp.adapter.weight"
    let (given, result) = try plan(["model.layers.0.mlp.up_proj.weight", extra], "LlamaForCausalLM")
    #expect(given[extra] == .keep(.unknown))
    #expect(given["model.layers.0.mlp.up_proj.weight"] == .quantize)
    #expect(result.skipModules == ["lm_head", "model.layers.0.mlp.adapter"])
    #expect(result.warnings.count == 1)
  }

  /// An entry `proj` would make the loader skip every `…_proj`.
  @Test func anUnknownWeightDoesNotTakeOthersWithIt() throws {
    let (given, result) = try plan(["model.layers.0.mlp.up_proj.weight", "proj.weight"], "LlamaForCausalLM")
    #expect(given["model.layers.0.mlp.up_proj.weight"] == .quantize)
    #expect(result.skipModules == ["lm_head"])
  }

  /// The user keeps `score`; for transformers 5 that entry matches `underscore` as well.
  @Test func collisionsStayWithTheirCause() throws {
    let names = ["score.weight", "layers.0.underscore.weight", "layers.0.up.weight"]
    let (five, result) = try plan(names, "NovelModel", keep: ["score"])
    #expect(five["layers.0.underscore.weight"] == .keep(.collision))
    #expect(five["layers.0.up.weight"] == .quantize)
    #expect(result.skipModules == ["layers.0.underscore", "lm_head", "score"])
    #expect(result.warnings.count == 2)
    #expect(
      try plan(names, "NovelModel", .transformers4, keep: ["score"]).dispositions["layers.0.underscore.weight"]
        == .quantize)
  }

  @Test func aGlobThatMatchesNothingWarns() throws {
    let (_, result) = try plan(["model.layers.0.mlp.up_proj.weight"], "LlamaForCausalLM", keep: ["model.layer.*"])
    #expect(result.warnings == ["--keep 'model.layer.*' matches no module"])
  }

  @Test func onlyFloatMatricesAreQuantized() throws {
    let configuration = ModelConfiguration(architecture: "LlamaForCausalLM")
    let name = TensorName("model.layers.0.mlp.up_proj.weight")
    for (type, shape) in [
      (ElementType.u8, [4, 4]), (.f8e4m3, [4, 4]), (.bf16, [4, 4, 1]), (.bf16, [4]), (.bf16, [0, 4]),
    ] {
      let tensor = try TensorInfo(name: name, type: type, shape: shape)
      let plan = planWeights([tensor], configuration: configuration, target: .transformers5, keep: [])
      #expect(plan.dispositions == [.keep(.notLinear)])
      #expect(plan.skipModules == ["lm_head", "model.layers.0.mlp.up_proj"])
    }
    for type in [ElementType.f16, .bf16, .f32, .f64] {
      let tensor = try TensorInfo(name: name, type: type, shape: [4, 4])
      let plan = planWeights([tensor], configuration: configuration, target: .transformers5, keep: [])
      #expect(plan.dispositions == [.quantize])
    }
  }

  /// Names are data from outside: they must reach neither the skip list as patterns nor take long.
  @Test func hostileNames() throws {
    let names = [
      ".weight", "weight", "a(b.weight", "model.layers.0.(.*).weight", "..weight",
      String(repeating: "a.", count: 50_000) + "weight",
      "model.layers.99999999999999999999.mlp.up_proj.weight",
    ]
    for architecture in ["LlamaForCausalLM", "NovelModel", "Qwen2VLForConditionalGeneration"] {
      let (given, result) = try plan(names, architecture)
      #expect(given.count == names.count)
      #expect(result.skipModules.allSatisfy { SkipMatcher.isPlain(Array($0.utf8)) })
    }
  }

  /// transformers replaces the stacked experts of Llama 4 when it loads a quantized checkpoint.
  @Test func stackedExpertsThatTheLoaderReplacesAreRefused() throws {
    let experts = try TensorInfo(
      name: "language_model.model.layers.0.feed_forward.experts.gate_up_proj", type: .bf16, shape: [2, 4, 4])
    let configuration = ModelConfiguration(architecture: "Llama4ForConditionalGeneration")
    let dense = try matrix("language_model.model.layers.0.self_attn.q_proj.weight")
    #expect(
      planWeights([experts, dense], configuration: configuration, target: .transformers5, keep: []).refusal != nil)
    #expect(planWeights([dense], configuration: configuration, target: .transformers5, keep: []).refusal == nil)
  }
}
