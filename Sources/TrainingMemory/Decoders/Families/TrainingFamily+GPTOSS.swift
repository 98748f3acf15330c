import Bytes
import ModelFamilies

extension TrainingFamily {
  /// Attention with a sink for each head, written out; experts with biases, which PEFT leaves alone.
  static let gptOSS = TrainingFamily(
    "gpt-oss", modelType: "gpt_oss", architecture: "GptOssForCausalLM",
    defaults: [
      "num_key_value_heads": 8, "head_dim": 64, "tie_word_embeddings": false, "attention_bias": true,
      "num_local_experts": 128, "num_experts_per_tok": 4,
    ],
    lastNorm: .float,
    layer: { decoder, _ throws(Failure) in
      let bias = try decoder.flag("attention_bias")
      let heads = decoder.heads
      decoder.norm(.float, "input_layernorm")
      decoder.projections(bias: bias, outputBias: bias, resultIsSaved: false)
      decoder.plain("self_attn.sinks", [heads.count])
      // cos and sin of half a head each.
      decoder.positions(decoder.sizes.headLength / 2)
      // Queries, keys and values of all heads; where each row's largest score is; the scores, the sink one of them.
      decoder.save(SavedTensor(.model, .tokens, 3, heads.queries))
      decoder.save(.int64, .tokens, heads.count)
      decoder.save(.model, .pairs, heads.count)
      decoder.save(.model, .tokens, heads.count)
      decoder.norm(.float, "post_attention_layernorm")
      try decoder.biasedExperts(decoder.experts(width: "intermediate_size"))
    })
}

extension DecoderBuilder {
  /// The stacks lie inputs × outputs.
  fileprivate mutating func biasedExperts(_ experts: Experts) throws(Failure) {
    let (count, width, used) = (experts.count, experts.width, experts.used)
    let both = try product(2, width, what: "intermediate_size")
    parameter("mlp.router.weight", [count, hidden], .shared("mlp", SavedTensor(.model, .tokens, hidden)))
    plain("mlp.router.bias", [count])
    parameter(
      "mlp.experts.gate_up_proj", [count, hidden, both], .shared("experts", SavedTensor(.model, .tokens, used, hidden)))
    plain("mlp.experts.gate_up_proj_bias", [count, both])
    parameter(
      "mlp.experts.down_proj", [count, width, hidden], .shared("product", SavedTensor(.model, .tokens, used, width)))
    plain("mlp.experts.down_proj_bias", [count, hidden])
    save(.int64, .tokens, used)
    save(.model, .tokens, used)
    save(.int64, .tokens, 3 * used)
    // Whose bias it was.
    save(SavedTensor(.int64, .tokens, used).forWeights)
    save(.int32, .once, count)
    // gate and up, clamped, the sigmoid, and the products.
    save(SavedTensor(.model, .tokens, used, 6, width))
    save(.model, .tokens, used)
    save(SavedTensor(.model, .tokens, used, hidden))
  }
}
