import Bytes
import ModelFamilies

extension TrainingFamily {
  static let phi3 = TrainingFamily("Phi-3", like: .phi3) { decoder, _ throws(Failure) in
    let heads = decoder.heads
    let all = heads.queries + 2 * heads.keys
    decoder.norm(.rms, "input_layernorm")
    decoder.linear("self_attn.qkv_proj", all, decoder.hidden, input: "attention")
    decoder.linear("self_attn.o_proj", decoder.hidden, heads.queries, input: "result")
    decoder.positions(try decoder.rotaryLength(decoder.sizes.headLength))
    decoder.fused(heads, window: try decoder.window(), values: all)
    decoder.norm(.rms, "post_attention_layernorm")
    try decoder.joinedMLP(try decoder.config.size("intermediate_size"))
  }
}
