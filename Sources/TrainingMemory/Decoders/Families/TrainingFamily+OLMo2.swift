import Bytes
import ModelFamilies

extension TrainingFamily {
  /// Norms behind attention and MLP, and over all queries and all keys; positions in float32.
  static let olmo2 = TrainingFamily("OLMo 2", like: .olmo2, lastNorm: .float) { decoder, _ throws(Failure) in
    let bias = try decoder.flag("attention_bias")
    let heads = decoder.heads
    decoder.projections(bias: bias, outputBias: bias)
    decoder.norm(.float, "self_attn.q_norm", width: heads.queries)
    decoder.norm(.float, "self_attn.k_norm", width: heads.keys)
    decoder.positions(decoder.sizes.headLength, .float32)
    decoder.fused(heads)
    decoder.norm(.float, "post_attention_layernorm")
    decoder.gatedMLP(width: try decoder.config.size("intermediate_size"))
    decoder.norm(.float, "post_feedforward_layernorm")
  }
}
