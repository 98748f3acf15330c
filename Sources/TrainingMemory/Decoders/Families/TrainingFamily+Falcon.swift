import Bytes
import ModelFamilies

extension TrainingFamily {
  static let falcon = TrainingFamily(
    "Falcon", modelType: "falcon", architecture: "FalconForCausalLM",
    defaults: ["tie_word_embeddings": true, "multi_query": true, "parallel_attn": true],
    spellings: ["num_key_value_heads": "num_kv_heads"], feedForwardFactor: 4,
    names: Names(
      embedding: "transformer.word_embeddings", layers: "transformer.h", norm: "transformer.ln_f"), lastNorm: .layer,
    layer: { decoder, _ throws(Failure) in
      let bias = try decoder.flag("bias")
      let isNew = try decoder.flag("new_decoder_architecture")
      // The new architecture has no other.
      let isParallel = try decoder.flag("parallel_attn") || isNew
      let norms = try decoder.config.integer("num_ln_in_parallel_attn") ?? (isNew ? 2 : 1)
      let hasTwo = isParallel && norms == 2
      let width = try decoder.config.optionalSize("ffn_hidden_size") ?? 4 * decoder.hidden
      decoder.norm(.layer, hasTwo ? "ln_attn" : "input_layernorm")
      if hasTwo { decoder.norm(.layer, "ln_mlp", isInputSaved: true) }
      try decoder.falconAttention(bias: bias, isNew: isNew)
      if !isParallel { decoder.norm(.layer, "post_attention_layernorm") }
      decoder.plainMLP(
        "mlp.dense_h_to_4h", "mlp.dense_4h_to_h", width: width, bias: bias,
        input: hasTwo || !isParallel ? "mlp" : "attention")
    })
}

extension DecoderBuilder {
  /// Queries, keys and values come from one projection. One key for all heads has no kernel; keys of groups are
  /// repeated; scores are masked, and with ALiBi the positions are in the mask.
  fileprivate mutating func falconAttention(bias: Bool, isNew: Bool) throws(Failure) {
    let heads = sizes.heads
    guard hidden % heads == 0 else {
      throw config.failure("num_attention_heads", "\(heads) does not divide hidden_size \(hidden)")
    }
    let head = hidden / heads
    let isSingle = try flag("multi_query") && !isNew
    let keys = isSingle ? head : (isNew ? sizes.keyValueHeads : heads) * head
    let hasBiasedScores = try flag("alibi")
    linear("self_attention.query_key_value", hidden + 2 * keys, hidden, bias: bias, input: "attention")
    linear(
      "self_attention.dense", hidden, hidden, bias: bias, input: isSingle && !hasBiasedScores ? "result" : nil)
    if !hasBiasedScores { positions(head) }
    if isSingle, !hasBiasedScores {
      warn(Self.scoresWarning)
      scores(heads, queries: hidden, result: hidden, single: head)
      return
    }
    save(.float32, .tokens, heads)
    save(.model, .tokens, hidden)
    if hasBiasedScores {
      save(SavedTensor(.model, .pairs, heads).shared("mask"))
      save(.model, .tokens, hidden + 2 * keys)
    } else {
      save(.model, .pairs, 1)
      save(SavedTensor(.model, .tokens, 2, hidden))
      // The values of all heads are a part of the projection.
      save(.model, .tokens, isNew ? hidden : hidden + 2 * keys)
    }
  }
}
