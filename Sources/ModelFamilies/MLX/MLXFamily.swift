/// A model class of mlx-lm: what it has otherwise than the class of transformers whose checkpoints it loads.
///
/// The rules are those of `Model.sanitize`, `Model.quant_predicate` and `ModelArgs` in `mlx_lm/models`, mlx-lm 0.32.2.
/// A class whose `sanitize` does more than a row can say has no row.
package struct MLXFamily: Sendable {
  /// Whether the class has an output matrix besides its embeddings.
  package enum Head: Sendable {
    /// `tie_word_embeddings` says so.
    ///
    /// - Parameter byDefault: whether embeddings are tied where config.json does not say; nil where it must.
    case unlessTied(byDefault: Bool?)
    case always, never, ifStored
  }

  /// Experts that are stored one by one and are stacked, with what their projections are called then.
  package struct Experts: Sendable {
    /// The member of config.json that counts them.
    package var count: String
    package var projections: [String: String]

    static func gated(_ count: String) -> Experts {
      Experts(count: count, projections: ["gate_proj": "gate_proj", "up_proj": "up_proj", "down_proj": "down_proj"])
    }

    static func numbered(_ count: String) -> Experts {
      Experts(count: count, projections: ["w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"])
    }
  }

  /// `model_type` in config.json, by which mlx-lm finds its class.
  package var modelType: String
  /// The class of transformers.
  package var architecture: String
  package var head: Head
  /// Ends of the paths of modules that always have a bias.
  package var biased: [String] = []
  /// Ends of the paths of modules that have a bias where the configuration says so.
  package var maybeBiased: [String] = []
  /// Ends of the paths of modules that get 8 bits in groups of 64 whatever the others get.
  package var eightBit: [String] = []
  package var experts: Experts?
  /// Members of config.json that mlx-lm cannot do without and transformers 5 writes under other names.
  package var needed: [String] = []
  /// Whether it reads `rope_parameters`, as transformers 5 writes it.
  package var readsRopeParameters = false
  /// Beginnings of names and what takes their place; the first that fits.
  var prefixes: [(old: String, new: String)] = []
  /// Ends of the names of matrices that lie transposed in a checkpoint of transformers.
  package var transposed: [String] = []
  /// Ends of the names of buffers that are left out.
  package var buffers: [String] = ["rotary_emb.inv_freq"]

  package static func isPath(_ path: String, _ ends: [String]) -> Bool {
    ends.contains { path == $0 || path.hasSuffix("." + $0) }
  }

  /// The name of a tensor in mlx-lm.
  package func name(_ name: String) -> String {
    for (old, new) in prefixes where name.hasPrefix(old) { return new + name.dropFirst(old.count) }
    return name
  }
}

extension MLXFamily {
  private static let attention = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]
  private static let linear = attention + ["self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
  private static let layerNorms = ["input_layernorm", "post_attention_layernorm", "model.norm"]
  private static let tied = Head.unlessTied(byDefault: true)
  private static let untied = Head.unlessTied(byDefault: false)
  private static let stated = Head.unlessTied(byDefault: nil)

  package static let all: [MLXFamily] = [
    MLXFamily(modelType: "llama", architecture: "LlamaForCausalLM", head: tied, maybeBiased: linear),
    MLXFamily(modelType: "mistral", architecture: "MistralForCausalLM", head: tied, maybeBiased: linear),
    MLXFamily(
      modelType: "mixtral", architecture: "MixtralForCausalLM", head: untied,
      experts: .numbered("num_local_experts")),
    MLXFamily(modelType: "qwen2", architecture: "Qwen2ForCausalLM", head: tied, biased: attention),
    MLXFamily(
      modelType: "qwen2_moe", architecture: "Qwen2MoeForCausalLM", head: .always, biased: attention,
      experts: .gated("num_experts"), needed: ["num_experts"]),
    MLXFamily(modelType: "qwen3", architecture: "Qwen3ForCausalLM", head: stated, readsRopeParameters: true),
    MLXFamily(
      modelType: "qwen3_moe", architecture: "Qwen3MoeForCausalLM", head: stated, eightBit: ["mlp.gate"],
      experts: .gated("num_experts"), needed: ["num_experts", "rope_theta"]),
    MLXFamily(modelType: "gemma", architecture: "GemmaForCausalLM", head: .never),
    MLXFamily(modelType: "gemma2", architecture: "Gemma2ForCausalLM", head: .never),
    MLXFamily(modelType: "gemma3_text", architecture: "Gemma3ForCausalLM", head: .ifStored),
    MLXFamily(modelType: "phi3", architecture: "Phi3ForCausalLM", head: untied),
    MLXFamily(
      modelType: "phi", architecture: "PhiForCausalLM", head: .always,
      biased: attention + ["self_attn.dense", "mlp.fc1", "mlp.fc2", "input_layernorm", "final_layernorm", "lm_head"]),
    MLXFamily(
      modelType: "granite", architecture: "GraniteForCausalLM", head: tied, maybeBiased: linear,
      eightBit: ["self_attn.o_proj", "mlp.down_proj", "lm_head"], needed: ["rope_theta"]),
    MLXFamily(modelType: "olmo2", architecture: "Olmo2ForCausalLM", head: tied, maybeBiased: linear),
    MLXFamily(
      modelType: "olmo3", architecture: "Olmo3ForCausalLM", head: untied, maybeBiased: linear, needed: ["rope_theta"]),
    MLXFamily(
      modelType: "olmoe", architecture: "OlmoeForCausalLM", head: tied, maybeBiased: attention + ["self_attn.o_proj"],
      experts: .gated("num_experts"), needed: ["num_experts"]),
    MLXFamily(modelType: "smollm3", architecture: "SmolLM3ForCausalLM", head: tied, maybeBiased: linear),
    MLXFamily(
      modelType: "starcoder2", architecture: "Starcoder2ForCausalLM", head: tied,
      biased: attention + ["self_attn.o_proj", "mlp.c_fc", "mlp.c_proj"] + layerNorms),
    MLXFamily(
      modelType: "cohere", architecture: "CohereForCausalLM", head: .never,
      maybeBiased: attention + ["self_attn.o_proj"]),
    MLXFamily(
      modelType: "cohere2", architecture: "Cohere2ForCausalLM", head: .never,
      maybeBiased: attention + ["self_attn.o_proj"]),
    MLXFamily(modelType: "glm", architecture: "GlmForCausalLM", head: tied, maybeBiased: attention),
    MLXFamily(
      modelType: "glm4", architecture: "Glm4ForCausalLM", head: .always, maybeBiased: attention,
      needed: ["rope_theta", "partial_rotary_factor"]),
    MLXFamily(
      modelType: "nemotron", architecture: "NemotronForCausalLM", head: untied, biased: layerNorms,
      maybeBiased: linear),
    MLXFamily(modelType: "seed_oss", architecture: "SeedOssForCausalLM", head: tied, maybeBiased: linear),
    MLXFamily(
      modelType: "ernie4_5", architecture: "Ernie4_5ForCausalLM", head: stated, maybeBiased: linear,
      needed: ["rope_theta"]),
    MLXFamily(
      modelType: "exaone4", architecture: "Exaone4ForCausalLM", head: stated, needed: ["rope_theta", "rope_scaling"]),
    MLXFamily(
      modelType: "gpt2", architecture: "GPT2LMHeadModel", head: .never,
      biased: ["ln_1", "ln_2", "ln_f", "attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"],
      prefixes: [("transformer.", "model."), ("", "model.")],
      transposed: ["attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight"],
      buffers: [".attn.bias", ".attn.masked_bias"]),
  ]
}
