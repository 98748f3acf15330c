import Bytes
import ModelFamilies

extension TrainingFamily {
  /// Every fourth layer does not turn, and has the window where there is one.
  static let smolLM3 = TrainingFamily("SmolLM3", like: .smolLM3) { decoder, layer throws(Failure) in
    let bias = try decoder.flag("attention_bias")
    let isTurned = try decoder.turns(layer)
    let window =
      try decoder.flag("use_sliding_window") ? try decoder.window(otherwise: !isTurned) : nil
    decoder.norm(.rms, "input_layernorm")
    decoder.attention(bias: bias, outputBias: bias, window: window, rotary: isTurned ? nil : 0)
    decoder.norm(.rms, "post_attention_layernorm")
    decoder.gatedMLP(width: try decoder.config.size("intermediate_size"), bias: try decoder.flag("mlp_bias"))
  }
}
