import Bytes
import JSON
import ModelFamilies

extension TrainingFamily {
  static let qwen2 = TrainingFamily("Qwen2", like: .qwen2) { decoder, layer throws(Failure) in
    decoder.norm(.rms, "input_layernorm")
    decoder.attention(bias: true, window: try decoder.qwenWindow(layer))
    decoder.norm(.rms, "post_attention_layernorm")
    decoder.gatedMLP(width: try decoder.config.size("intermediate_size"))
  }

  static let qwen3 = TrainingFamily("Qwen3", like: .qwen3) { decoder, layer throws(Failure) in
    let bias = try decoder.flag("attention_bias")
    decoder.norm(.rms, "input_layernorm")
    decoder.attention(bias: bias, outputBias: bias, window: try decoder.qwenWindow(layer), norm: .rms)
    decoder.norm(.rms, "post_attention_layernorm")
    decoder.gatedMLP(width: try decoder.config.size("intermediate_size"))
  }

  /// Every expert beside one that all tokens pass, which has a gate of width one. PEFT leaves these experts alone.
  static let qwen2MoE = TrainingFamily("Qwen2-MoE", like: .qwen2MoE) { decoder, layer throws(Failure) in
    decoder.norm(.rms, "input_layernorm")
    // Every second layer below `max_window_layers`.
    let isWindowed = try decoder.config.integer("max_window_layers").map { layer % 2 == 0 && layer < $0 }
    let hasWindows = try decoder.flag("use_sliding_window")
    decoder.attention(
      bias: try decoder.flag("qkv_bias", true),
      window: hasWindows ? try decoder.window(otherwise: isWindowed ?? (layer % 2 == 0 && layer < 28)) : nil)
    decoder.norm(.rms, "post_attention_layernorm")
    guard try decoder.isSparse(layer) else {
      decoder.gatedMLP(width: try decoder.config.size("intermediate_size"))
      return
    }
    let experts = try decoder.experts()
    decoder.gatedMLP("mlp.shared_expert", width: try decoder.config.size("shared_expert_intermediate_size"))
    decoder.router(experts, normalized: try decoder.flag("norm_topk_prob"))
    try decoder.groupedExperts(experts)
    decoder.linear("mlp.shared_expert_gate", 1, decoder.hidden, input: "mlp")
    decoder.save(.model, .tokens, 1)
    decoder.save(.model, .tokens, decoder.hidden)
  }

  static let qwen3MoE = TrainingFamily("Qwen3-MoE", like: .qwen3MoE, experts: .qwen) { decoder, layer throws(Failure) in
    let bias = try decoder.flag("attention_bias")
    decoder.norm(.rms, "input_layernorm")
    let window = try decoder.flag("use_sliding_window") ? try decoder.config.optionalSize("sliding_window") : nil
    decoder.attention(bias: bias, outputBias: bias, window: window, norm: .rms)
    decoder.norm(.rms, "post_attention_layernorm")
    guard try decoder.isSparse(layer) else {
      decoder.gatedMLP(width: try decoder.config.size("intermediate_size"))
      return
    }
    let experts = try decoder.experts()
    decoder.router(experts, normalized: try decoder.flag("norm_topk_prob"))
    try decoder.groupedExperts(experts)
  }
}

extension DecoderBuilder {
  /// From `max_window_layers` on.
  fileprivate func qwenWindow(_ layer: Int) throws(Failure) -> Int? {
    guard try flag("use_sliding_window") else { return nil }
    let first = try config.integer("max_window_layers")
    return try window(otherwise: layer >= first ?? 28)
  }

  /// Whether a layer has experts in place of the MLP.
  fileprivate func isSparse(_ layer: Int) throws(Failure) -> Bool {
    let step = try config.optionalSize("decoder_sparse_step") ?? 1
    let dense = try config.array("mlp_only_layers") ?? []
    return (layer + 1) % step == 0 && !dense.contains { $0.int == layer }
  }
}
