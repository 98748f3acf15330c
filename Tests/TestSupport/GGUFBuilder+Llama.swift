extension GGUFBuilder {
  /// A Llama of one layer that has a Hugging Face form: 32 wide, 64 inside, four heads of 8 that share two keys, 48
  /// tokens of SentencePiece.
  public static let llama: GGUFBuilder = {
    let tokens = ["<unk>", "<s>", "</s>"] + (3..<48).map { "t\($0)" }
    var builder = GGUFBuilder([
      Pair("general.architecture", .string("llama")), Pair("llama.block_count", .uint32(1)),
      Pair("llama.context_length", .uint32(64)), Pair("llama.embedding_length", .uint32(32)),
      Pair("llama.feed_forward_length", .uint32(64)), Pair("llama.attention.head_count", .uint32(4)),
      Pair("llama.attention.head_count_kv", .uint32(2)), Pair("llama.rope.freq_base", .float32(10000)),
      Pair("llama.attention.layer_norm_rms_epsilon", .float32(1e-5)), Pair("llama.attention.key_length", .uint32(8)),
      Pair("llama.attention.value_length", .uint32(8)), Pair("llama.vocab_size", .uint32(48)),
      Pair("llama.rope.dimension_count", .uint32(8)), Pair("tokenizer.ggml.model", .string("llama")),
      Pair("tokenizer.ggml.tokens", .strings(tokens)),
      Pair("tokenizer.ggml.scores", .array((0..<48).map { .float32(-Float($0)) })),
      Pair("tokenizer.ggml.token_type", .array((0..<48).map { .int32($0 == 0 ? 2 : $0 < 3 ? 3 : 1) })),
      Pair("tokenizer.ggml.bos_token_id", .uint32(1)), Pair("tokenizer.ggml.eos_token_id", .uint32(2)),
      Pair("tokenizer.ggml.unknown_token_id", .uint32(0)),
    ])
    let shapes: KeyValuePairs<String, [UInt64]> = [
      "token_embd": [32, 48], "output_norm": [32], "output": [32, 48], "blk.0.attn_norm": [32], "blk.0.ffn_norm": [32],
      "blk.0.attn_q": [32, 32], "blk.0.attn_k": [32, 16], "blk.0.attn_v": [32, 16], "blk.0.attn_output": [32, 32],
      "blk.0.ffn_gate": [32, 64], "blk.0.ffn_up": [32, 64], "blk.0.ffn_down": [64, 32],
    ]
    for (number, (name, dimensions)) in shapes.enumerated() {
      let values = TestModel.tensor(name, "F32", dimensions.map { Int($0) }, seed: UInt64(number))
      builder.tensors.append(Tensor(name + ".weight", 0, dimensions, values.data))
    }
    return builder
  }()
}
