import Bytes
import ModelFamilies

extension TrainingFamily {
  static let mistral = TrainingFamily("Mistral", like: .mistral) { decoder, _ throws(Failure) in
    decoder.norm(.rms, "input_layernorm")
    decoder.attention(window: try decoder.window())
    decoder.norm(.rms, "post_attention_layernorm")
    decoder.gatedMLP(width: try decoder.config.size("intermediate_size"))
  }
}
