import Bytes
import JSON
import ModelFamilies

extension TrainingFamily {
  /// The text model. Three layers of four turn and look back at a chunk; every expert gets every token, most of them
  /// multiplied by 0.
  static let llama4 = TrainingFamily(
    "Llama 4", modelType: "llama4_text", architecture: "Llama4ForCausalLM",
    defaults: [
      "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": false, "intermediate_size_mlp": 16384,
      "num_experts_per_tok": 1, "num_local_experts": 16, "use_qk_norm": true, "attention_chunk_size": 8192,
      "attn_temperature_tuning": true,
    ],
    layer: { decoder, layer throws(Failure) in
      let bias = try decoder.flag("attention_bias")
      let heads = decoder.heads
      let isTurned = try decoder.turns(layer)
      let window = try decoder.window(
        "attention_chunk_size", type: "chunked_attention", otherwise: isTurned)
      decoder.norm(.rms, "input_layernorm")
      decoder.projections(bias: bias, outputBias: bias)
      if isTurned {
        // Complex numbers.
        decoder.save(SavedTensor(.float32, .positions, decoder.sizes.headLength).shared("rotary"))
        if try decoder.flag("use_qk_norm") {
          decoder.save(.float32, .tokens, heads.queries + heads.count + heads.keys + decoder.sizes.keyValueHeads)
        }
      } else if try decoder.flag("attn_temperature_tuning") {
        decoder.save(.float32, .tokens, 1)
      }
      decoder.fused(heads, window: window)
      decoder.norm(.rms, "post_attention_layernorm")
      if try decoder.hasExperts(layer) {
        try decoder.allExperts()
      } else {
        decoder.gatedMLP("feed_forward", width: try decoder.config.size("intermediate_size_mlp"))
      }
    })
}

extension DecoderBuilder {
  /// Whether a layer applies RoPE: by `no_rope_layers`, which has 1 for layers that do, else by the interval.
  func turns(_ layer: Int) throws(Failure) -> Bool {
    if let list = try config.array("no_rope_layers"), !list.isEmpty {
      guard layer < list.count, let number = list[layer].int else {
        throw config.failure("no_rope_layers", "does not say of layer \(layer) whether it turns")
      }
      return number != 0
    }
    return try (layer + 1) % (config.optionalSize("no_rope_layer_interval") ?? 4) != 0
  }

  fileprivate func hasExperts(_ layer: Int) throws(Failure) -> Bool {
    if let list = try config.array("moe_layers") { return list.contains { $0.int == layer } }
    let step = try config.optionalSize("interleave_moe_layer_step") ?? 1
    return (layer + 1) % step == 0
  }

  fileprivate mutating func allExperts() throws(Failure) {
    let width = try config.size("intermediate_size")
    let both = try product(2, width, what: "intermediate_size")
    let experts = try experts(width: "intermediate_size")
    let count = experts.count
    // A subclass of a linear layer that returns two tensors: PEFT would adapt it, and the model would stop working.
    linear("feed_forward.router", count, hidden, input: "mlp", isAdapted: false)
    save(.int64, .tokens, experts.used)
    save(.float32, .tokens, count)
    save(.model, .tokens, count)
    save(SavedTensor(.model, .tokens, count, hidden))
    parameter(
      "feed_forward.experts.gate_up_proj", [count, hidden, both],
      .shared("experts", SavedTensor(.model, .tokens, count, hidden)))
    parameter(
      "feed_forward.experts.down_proj", [count, width, hidden],
      .shared("product", SavedTensor(.model, .tokens, count, width)))
    save(SavedTensor(.model, .tokens, count, 3, width))
    gatedMLP("feed_forward.shared_expert", width: width)
    warn("PEFT's all-linear adapts the routers too, after which the model fails: name the modules to adapt")
  }
}
