import Bytes
import ModelFamilies

extension TrainingFamily {
  /// Learned positions, Conv1D for linear layers, and dropout unless the configuration says 0.
  static let gpt2 = TrainingFamily(
    "GPT-2", like: .gpt2,
    names: Names(embedding: "transformer.wte", layers: "transformer.h", norm: "transformer.ln_f"), lastNorm: .layer,
    // The causal mask, which the first checkpoints hold.
    ignoredSuffixes: [".attn.bias", ".attn.masked_bias"],
    outside: { decoder throws(Failure) in
      let positions = try decoder.config.size("max_position_embeddings")
      decoder.plain("transformer.wpe.weight", [positions, decoder.hidden])
      decoder.save(SavedTensor(.int64, .positions, 1).forWeights)
      try decoder.dropout("embd_pdrop", otherwise: 0.1)
    },
    layer: { decoder, _ throws(Failure) in
      let hidden = decoder.hidden
      decoder.norm(.layer, "ln_1")
      let hasDropout = try decoder.config.number("attn_pdrop") ?? 0.1 > 0
      decoder.linear("attn.c_attn", 3 * hidden, hidden, bias: true, input: "attention", isTransposed: true)
      decoder.linear(
        "attn.c_proj", hidden, hidden, bias: true, input: hasDropout ? "result" : nil, isTransposed: true)
      if hasDropout {
        decoder.warn(DecoderBuilder.scoresWarning)
        decoder.scores(decoder.heads.count, queries: hidden, result: hidden, dropout: true)
      } else {
        // Queries, keys and values are parts of one tensor.
        decoder.save(SavedTensor(.model, .tokens, 4, hidden))
        decoder.save(.float32, .tokens, decoder.heads.count)
      }
      try decoder.dropout("resid_pdrop", otherwise: 0.1)
      decoder.norm(.layer, "ln_2")
      // gelu_new is written out: four tensors.
      let width = try decoder.config.optionalSize("intermediate_size") ?? 4 * hidden
      decoder.plainMLP("mlp.c_fc", "mlp.c_proj", width: width, saved: 4, bias: true, isTransposed: true)
      try decoder.dropout("resid_pdrop", otherwise: 0.1)
    })
}
