import Bytes
import ModelFamilies

extension TrainingFamily {
  private static func embeddingDropout(_ decoder: inout DecoderBuilder) throws(Failure) {
    try decoder.dropout("embedding_dropout")
  }

  static let starcoder2 = TrainingFamily(
    "StarCoder2", like: .starcoder2, lastNorm: .layer, outside: embeddingDropout
  ) { decoder, _ throws(Failure) in
    let bias = try decoder.flag("use_bias", true)
    let heads = decoder.heads
    let hasDropout = try decoder.config.number("attention_dropout") ?? 0 > 0
    decoder.norm(.layer, "input_layernorm")
    decoder.projections(bias: bias, outputBias: bias, resultIsSaved: !hasDropout)
    decoder.positions(decoder.sizes.headLength)
    if hasDropout {
      decoder.warn(DecoderBuilder.scoresWarning)
      decoder.scores(heads.count, queries: heads.queries, result: heads.queries, dropout: true)
    } else {
      decoder.fused(heads, window: try decoder.window())
    }
    try decoder.dropout("residual_dropout")
    decoder.norm(.layer, "post_attention_layernorm")
    decoder.plainMLP("mlp.c_fc", "mlp.c_proj", width: try decoder.config.size("intermediate_size"), bias: bias)
    try decoder.dropout("residual_dropout")
  }
}
