import Bytes
import ModelFamilies

extension TrainingFamily {
  static let deepSeekV2 = TrainingFamily(
    "DeepSeek-V2", modelType: "deepseek_v2", architecture: "DeepseekV2ForCausalLM",
    defaults: [
      "tie_word_embeddings": false, "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128,
      "qk_rope_head_dim": 64, "v_head_dim": 128, "num_local_experts": 64, "n_shared_experts": 2,
      "moe_intermediate_size": 1407, "first_k_dense_replace": 0, "topk_method": "greedy",
    ],
    spellings: ["num_local_experts": "n_routed_experts"], experts: .qwen,
    layer: { decoder, layer throws(Failure) in
      let isGrouped = try decoder.config.text("topk_method") == "group_limited_greedy"
      try decoder.deepSeekLayer(layer, hasComplexPositions: true) { decoder, experts throws(Failure) in
        // The best of each group, the groups, the mask.
        if isGrouped { try decoder.groups(experts, best: 1) }
      }
    })

  static let deepSeekV3 = TrainingFamily(
    "DeepSeek-V3", modelType: "deepseek_v3", architecture: "DeepseekV3ForCausalLM",
    defaults: [
      "tie_word_embeddings": false, "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128,
      "qk_rope_head_dim": 64, "v_head_dim": 128, "num_local_experts": 256, "n_shared_experts": 1,
      "moe_intermediate_size": 2048, "first_k_dense_replace": 3, "n_group": 8, "topk_group": 4,
      "num_experts_per_tok": 8, "norm_topk_prob": true,
    ],
    spellings: ["num_local_experts": "n_routed_experts"], experts: .qwen,
    ignoredSuffixes: [".e_score_correction_bias"],
    layer: { decoder, layer throws(Failure) in
      try decoder.deepSeekLayer(layer, hasComplexPositions: false) { decoder, experts throws(Failure) in
        // The two best of each group.
        try decoder.groups(experts, best: 2)
        if try decoder.flag("norm_topk_prob") { decoder.save(.float32, .tokens, 1 + experts.used) }
      }
    })
}

extension DecoderBuilder {
  fileprivate mutating func groups(_ experts: Experts, best: Int) throws(Failure) {
    let groups = try config.optionalSize("n_group", limit: experts.count) ?? 1
    let chosen = try config.optionalSize("topk_group", limit: groups) ?? 1
    save(.int64, .tokens, best * groups + chosen)
    save(.byte, .tokens, experts.count)
  }

  fileprivate mutating func deepSeekLayer(
    _ layer: Int, hasComplexPositions: Bool,
    choice: (inout DecoderBuilder, Experts) throws(Failure) -> Void
  ) throws(Failure) {
    norm(.rms, "input_layernorm")
    try latentAttention(hasComplexPositions: hasComplexPositions)
    norm(.rms, "post_attention_layernorm")
    guard try layer >= config.integer("first_k_dense_replace") ?? 0 else {
      gatedMLP(width: try config.size("intermediate_size"), bias: try flag("mlp_bias"))
      return
    }
    let experts = try experts(hasFloatWeights: true)
    // The router computes in float32, with copies of its input and its weight.
    routerWeight(experts, .shared("router", SavedTensor(.float32, .tokens, hidden)), savesSum: false)
    save(SavedTensor(.float32, .once, experts.count, hidden))
    save(.float32, .tokens, experts.count)
    save(.int64, .tokens, experts.used)
    try choice(&self, experts)
    try groupedExperts(experts)
    let shared = try product(config.size("n_shared_experts"), experts.width, what: "n_shared_experts")
    gatedMLP("mlp.shared_experts", width: shared, bias: try flag("mlp_bias"))
  }

  /// Queries, keys and values pass a narrow layer with a norm first; one part of queries and keys turns, the other not.
  private mutating func latentAttention(hasComplexPositions: Bool) throws(Failure) {
    let bias = try flag("attention_bias")
    let count = sizes.heads
    let turned = try config.size("qk_rope_head_dim")
    let still = try config.size("qk_nope_head_dim")
    let value = try config.size("v_head_dim")
    let narrow = try config.size("kv_lora_rank")
    let queries = try product(count, turned + still, what: "qk_nope_head_dim")
    let result = try product(count, value, what: "v_head_dim")
    let both = try product(count, still + value, what: "v_head_dim")
    if let rank = try config.optionalSize("q_lora_rank") {
      linear("self_attn.q_a_proj", rank, hidden, bias: bias, input: "attention")
      norm(.rms, "self_attn.q_a_layernorm", width: rank)
      linear("self_attn.q_b_proj", queries, rank, input: "narrow queries")
    } else {
      linear("self_attn.q_proj", queries, hidden, input: "attention")
    }
    linear("self_attn.kv_a_proj_with_mqa", narrow + turned, hidden, bias: bias, input: "attention")
    norm(.rms, "self_attn.kv_a_layernorm", width: narrow)
    linear("self_attn.kv_b_proj", both, narrow, input: "narrow keys")
    if hasComplexPositions {
      save(SavedTensor(.float32, .positions, turned).shared("rotary"))
    } else {
      positions(turned)
    }
    let isFused = turned + still == value
    linear("self_attn.o_proj", hidden, result, bias: bias, input: "result")
    if isFused {
      fused(Heads(count: count, queries: queries, keys: queries, isGrouped: false), values: both)
    } else {
      warn(Self.scoresWarning)
      scores(count, queries: queries, result: result)
    }
  }
}
