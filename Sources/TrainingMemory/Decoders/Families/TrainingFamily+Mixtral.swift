import Bytes
import ModelFamilies

extension TrainingFamily {
  static let mixtral = TrainingFamily("Mixtral", like: .mixtral, experts: .mixtral) { decoder, _ throws(Failure) in
    let experts = try decoder.experts(width: "intermediate_size", hasFloatWeights: true)
    decoder.norm(.rms, "input_layernorm")
    decoder.attention(window: try decoder.window())
    decoder.norm(.rms, "post_attention_layernorm")
    decoder.router(experts, normalized: true)
    try decoder.groupedExperts(experts)
  }
}
