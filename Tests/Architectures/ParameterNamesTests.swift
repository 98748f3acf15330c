import Tensors
import Testing

@testable import Architectures

/// What the tensors of a checkpoint are called in the model that loads them, which is what adapters speak of.
@Suite struct ParameterNamesTests {
  private func names(
    _ names: [String], _ architecture: String?, modelType: String? = nil, ties: Bool? = nil, textTies: Bool? = nil
  ) -> ParameterNames {
    ParameterNames(
      names.map { TensorName($0) },
      configuration: ModelConfiguration(
        architecture: architecture, modelType: modelType, tiesWordEmbeddings: ties, textTiesWordEmbeddings: textTies))
  }

  private static let llama = [
    "model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.q_proj.bias",
    "model.layers.0.mlp.down_proj.weight", "model.layers.0.input_layernorm.weight", "model.norm.weight",
  ]

  @Test func llama() {
    let found = names(Self.llama + ["lm_head.weight"], "LlamaForCausalLM")
    #expect(found.places == (Self.llama + ["lm_head.weight"]).map { ParameterPlace(parameter: $0) })
    #expect(found.isKnown && found.basePrefix == "model" && found.outputEmbedding == "lm_head")
    #expect(!found.tiesEmbeddings)
    #expect(names(Self.llama, "LlamaForCausalLM", ties: true).tiesEmbeddings)
  }

  /// Saved as `LlamaModel`, loaded as `LlamaForCausalLM`.
  @Test func llamaWithoutPrefix() {
    let found = names(Self.llama.map { String($0.dropFirst("model.".count)) }, "LlamaForCausalLM")
    #expect(found.places.map(\.parameter) == Self.llama)
  }

  @Test(arguments: [("Qwen2ForCausalLM", true as Bool?), ("Qwen2ForCausalLM", nil), ("Qwen2ForCausalLM", false)])
  func qwen2(_ architecture: String, _ ties: Bool?) {
    let found = names(Self.llama, architecture, modelType: "qwen2", ties: ties)
    #expect(found.places.map(\.parameter) == Self.llama && found.basePrefix == "model")
    #expect(found.tiesEmbeddings == (ties ?? false) && found.outputEmbedding == "lm_head")
  }

  // MARK: - GPT-2

  private static let gpt2: [(name: String, isConv1D: Bool)] = [
    ("wte.weight", false), ("wpe.weight", false), ("h.0.ln_1.weight", false), ("h.0.ln_1.bias", false),
    ("h.0.attn.c_attn.weight", true), ("h.0.attn.c_attn.bias", false), ("h.0.attn.c_proj.weight", true),
    ("h.0.mlp.c_fc.weight", true), ("h.11.mlp.c_proj.weight", true), ("ln_f.weight", false),
  ]

  /// The original files have no `transformer.` in front, those that transformers saves do.
  @Test(arguments: ["", "transformer."])
  func gpt2(_ prefix: String) {
    let found = names(Self.gpt2.map { prefix + $0.name }, "GPT2LMHeadModel", modelType: "gpt2")
    for (place, expected) in zip(found.places, Self.gpt2) {
      #expect(place.parameter == "transformer." + expected.name)
      #expect(place.isConv1D == expected.isConv1D && place.part == nil, "\(expected.name)")
    }
    #expect(found.isKnown && found.basePrefix == "transformer" && found.outputEmbedding == "lm_head")
    #expect(found.tiesEmbeddings, "by default")
    #expect(!names([], "GPT2LMHeadModel", ties: false).tiesEmbeddings)
  }

  // MARK: - Experts

  /// Eight modules of three weights, stacked when they are loaded: w1 and w3 are one parameter.
  @Test func mixtral() {
    let path = "model.layers.1.block_sparse_moe"
    let found = names(
      (0..<3).flatMap { expert in ["w1", "w2", "w3"].map { "\(path).experts.\(expert).\($0).weight" } }
        + ["\(path).gate.weight", "model.layers.1.self_attn.q_proj.weight"], "MixtralForCausalLM", modelType: "mixtral")
    for expert in 0..<3 {
      let places = found.places[3 * expert..<3 * expert + 3]
      let stack = "model.layers.1.mlp.experts"
      #expect(places.map(\.parameter) == ["\(stack).gate_up_proj", "\(stack).down_proj", "\(stack).gate_up_proj"])
      #expect(
        places.map(\.part) == [
          .init(expert: expert, index: 0, count: 2), .init(expert: expert, index: 0, count: 1),
          .init(expert: expert, index: 1, count: 2),
        ])
      #expect(places.map(\.isConv1D) == [false, false, false])
    }
    #expect(found.places[9] == ParameterPlace(parameter: "model.layers.1.mlp.gate.weight", isRouter: true))
    #expect(found.places[10] == ParameterPlace(parameter: "model.layers.1.self_attn.q_proj.weight"))
  }

  /// Stored as they are loaded.
  @Test func stackedExperts() {
    let stored = ["model.layers.0.mlp.experts.gate_up_proj", "model.layers.0.mlp.experts.down_proj"]
    #expect(names(stored, "MixtralForCausalLM").places == stored.map { ParameterPlace(parameter: $0) })
  }

  // MARK: - Not known

  @Test(arguments: ["TestForCausalLM" as String?, nil])
  func unknown(_ architecture: String?) {
    let stored = Self.llama + ["h.0.attn.c_attn.weight", "", "."]
    let found = names(stored, architecture, textTies: true)
    #expect(found.places == stored.map { ParameterPlace(parameter: $0) })
    #expect(!found.isKnown && found.basePrefix == "" && found.tiesEmbeddings && found.outputEmbedding == "lm_head")
    #expect(!names(stored, architecture).tiesEmbeddings)
  }

  /// Names that no model has stay what they are.
  @Test func strangeNames() {
    let stored = [
      "", ".", "..", "model.", ".weight", "weight", String(repeating: "a.", count: 300), "model..norm.weight",
    ]
    let found = names(stored, "LlamaForCausalLM")
    #expect(found.places.map(\.parameter) == stored)
  }
}
