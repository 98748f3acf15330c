import Bytes
import ModelFamilies

extension TrainingFamily {
  static let granite = TrainingFamily("Granite", like: .granite) { decoder, _ throws(Failure) in
    let bias = try decoder.flag("attention_bias")
    decoder.norm(.rms, "input_layernorm")
    decoder.attention(bias: bias, outputBias: bias)
    decoder.norm(.rms, "post_attention_layernorm")
    decoder.gatedMLP(width: try decoder.config.size("intermediate_size"), bias: try decoder.flag("mlp_bias"))
  }
}
