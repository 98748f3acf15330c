extension HostileGGUF {
  /// Valid files that are no valid models: what `convert` and `quantize` to a directory refuse.
  public static var models: [HostileFile] { architectures + sizes + numbersOfRope + vocabularies + tensorsOfModel }

  private static func model(
    _ name: String, exitCode: Int32 = 65, _ message: String, tensor: String? = nil,
    _ change: @escaping @Sendable (inout GGUFBuilder) -> Void
  ) -> HostileFile { row(name, exitCode: exitCode, message, tensor: tensor, of: .llama, change: change) }

  private static func key(
    _ key: String, _ value: GGUFBuilder.Value?, _ found: String, exitCode: Int32 = 65, _ message: String,
    tensor: String? = nil
  ) -> HostileFile {
    model("\(key): \(found)", exitCode: exitCode, message, tensor: tensor) { $0.set(key, value) }
  }

  private static let architectures = [
    key("general.architecture", nil, "absent", "metadata 'general.architecture' is missing"),
    key("general.architecture", .uint32(1), "number", "found uint32, expected a UTF-8 string"),
    key("general.architecture", .string([0xFF]), "bytes", "found string, expected a UTF-8 string"),
    key("general.architecture", .string(""), "empty", exitCode: 69, "architecture '' has no Hugging Face form"),
    key("general.architecture", .string("cl\u{1b}ip"), "escape", exitCode: 69, "architecture 'cl\\u{1b}ip' has no"),
    key("general.architecture", .string("qwen2"), "another", "metadata 'qwen2.block_count' is missing"),
    key("general.type", .string("mmproj"), "projector", exitCode: 69, "general.type is 'mmproj'"),
    key("general.type", .array([]), "array", "found array, expected a UTF-8 string"),
  ]

  private static let sizes: [HostileFile] = [
    key("llama.block_count", .uint32(1_000_000_000), "1e9", "is missing", tensor: "blk.1.attn_norm.weight"),
    key("llama.block_count", .uint64(.max), "2^64-1", "found uint64, expected a whole number"),
    key("llama.block_count", .uint64(1 << 62), "2^62", "num_hidden_layers: found 4611686018427387904"),
    key("llama.block_count", .int32(-1), "-1", "num_hidden_layers: found -1"),
    key("llama.block_count", .uint32(0), "0", "num_hidden_layers: found 0"),
    key("llama.block_count", .string("1"), "string", "found string, expected a whole number"),
    key("llama.block_count", .float32(1), "float", "found float32, expected a whole number"),
    key("llama.block_count", .array([.uint32(1)]), "array", "found array, expected a whole number"),
    key("llama.block_count", nil, "absent", "metadata 'llama.block_count' is missing"),
    key("llama.attention.head_count", .uint32(0), "0", "num_attention_heads: found 0"),
    key("llama.attention.head_count", .uint32(6), "6", "has shape [32, 32], the metadata makes it [48, 32]"),
    key("llama.attention.head_count", .uint32(1 << 31), "2^31", "num_attention_heads: found 2147483648"),
    key("llama.attention.head_count", .uint32(1 << 30), "2^30", "heads of 8 are more than 2147483647"),
    key("llama.attention.head_count", .array([.uint32(4)]), "array", "found array, expected a whole number"),
    key("llama.attention.head_count_kv", .uint32(0), "0", "num_key_value_heads: found 0"),
    key("llama.attention.head_count_kv", .uint32(3), "3", "3 does not divide num_attention_heads 4"),
    key("llama.attention.head_count_kv", .int32(-2), "-2", "num_key_value_heads: found -2"),
    key("llama.attention.key_length", .uint32(0), "0", exitCode: 69, "found 8, expected the key length 0"),
    key("llama.attention.key_length", nil, "absent", "metadata 'llama.attention.key_length' is missing"),
    key("llama.embedding_length", .uint32(0), "0", "hidden_size: found 0"),
    key("llama.embedding_length", .uint32(.max), "2^32-1", "hidden_size: found 4294967295"),
    key("llama.embedding_length", .uint32(1 << 31 - 1), "2^31-1", "the metadata makes it [48, 2147483647]"),
    key("llama.feed_forward_length", .uint64(1 << 63 - 1), "2^63-1", "intermediate_size: found"),
    key("llama.feed_forward_length", .uint32(65), "65", "the metadata makes it [65, 32]"),
    key("llama.context_length", .bool(1), "bool", "found bool, expected a whole number"),
    key("llama.vocab_size", .uint32(47), "47", "has 48 rows, metadata 'llama.vocab_size' is 47"),
    key("llama.vocab_size", .uint32(.max), "2^32-1", "has 48 rows, metadata 'llama.vocab_size' is 4294967295"),
    model("a billion experts", "num_local_experts: found 1000000000, allowed are 1 to 4096") {
      $0.set("llama.expert_count", .uint32(1_000_000_000))
      $0.set("llama.expert_used_count", .uint32(2))
    },
    key("llama.expert_count", .string("8"), "string", "found string, expected a whole number"),
  ]

  private static let numbersOfRope = [
    key("llama.attention.layer_norm_rms_epsilon", .float32(.nan), "NaN", "is not a finite number"),
    key("llama.attention.layer_norm_rms_epsilon", .uint32(0), "integer", "found uint32, expected a floating-point"),
    key("llama.rope.freq_base", .float64(.infinity), "infinite", "is not a finite number"),
    key("llama.rope.dimension_count", .uint32(4), "4", exitCode: 69, "found 4, llama models turn all 8 values"),
    key("llama.rope.scaling.type", .string("magic"), "unknown", exitCode: 69, "found 'magic', expected none, linear"),
    key("llama.rope.scaling.type", .string("linear"), "no factor", "'llama.rope.scaling.factor' is missing"),
    model("factors of rotary positions that are no row", "has shape [2, 2], expected one short row") {
      $0.tensors.append(.init("rope_freqs.weight", 0, [2, 2], [UInt8](repeating: 0, count: 16)))
    },
    model("factors of rotary positions that are 0", "factors that are no finite numbers above 0") {
      $0.tensors.append(.init("rope_freqs.weight", 0, [4], [UInt8](repeating: 0, count: 16)))
    },
  ]

  private static let vocabularies: [HostileFile] =
    [
      key("tokenizer.ggml.model", .uint8(1), "number", "found uint8, expected a UTF-8 string"),
      key("tokenizer.ggml.tokens", .string("a"), "string", "found string, expected an array"),
      key("tokenizer.ggml.tokens", .array((0..<48).map { .int32($0) }), "numbers", "found an array of int32, expected"),
      key("tokenizer.ggml.tokens", .strings([]), "none", "has 0 tokens, allowed are 1 to 4194304"),
      key("tokenizer.ggml.tokens", .strings(["a", "b", "c"]), "three", "tokens"),
      key("tokenizer.ggml.tokens", .strings((0..<48).map { "\($0 / 2)" }), "twice", "tokens 0 and 1 are the same text"),
      key("tokenizer.ggml.tokens", .strings((0..<48).map { $0 == 7 ? "" : "\($0)" }), "empty", "token 7 is empty"),
      key(
        "tokenizer.ggml.tokens", .array((0..<48).map { .string([0xFF, $0]) }), "not UTF-8", "token 0 is not UTF-8"),
      key("tokenizer.ggml.scores", .array([.float32(1)]), "one", "has not one number for each of 48 tokens"),
      key("tokenizer.ggml.scores", .array((0..<48).map { .int8($0) }), "int8", "found an array of int8, expected"),
      key("tokenizer.ggml.scores", .array((0..<48).map { _ in .float32(.nan) }), "NaN", "has not one number for each"),
      key("tokenizer.ggml.token_type", .array([.int32(1)]), "one", "has 1 elements for 48 tokens"),
      key("tokenizer.ggml.token_type", .array((0..<48).map { _ in .int32(7) }), "7", "token 0 has type 7, allowed are"),
      key("tokenizer.ggml.token_type", .array((0..<48).map { _ in .int64(.min) }), "-2^63", "token 0 has type -9223"),
      key("tokenizer.ggml.token_type", .strings(["1"]), "strings", "has 1 elements for 48 tokens"),
      key("tokenizer.ggml.bos_token_id", .uint32(48), "48", "is 48, but there are 48 tokens"),
      key("tokenizer.ggml.eos_token_id", .int32(-1), "-1", "is -1, but there are 48 tokens"),
      key("tokenizer.ggml.add_bos_token", .uint8(1), "number", "found uint8, expected a bool"),
      key("tokenizer.chat_template", .string([0xFF]), "bytes", "found string, expected a UTF-8 string"),
      key("tokenizer.chat_template.x", .string([0xFF]), "bytes", "found string, expected a UTF-8 string"),
    ]
    + [
      (["a"], "merge 0, 'a', is not two tokens with a space between"), (["t3 t4"], "needs a token that is not in the"),
      ([" "], "needs a token that is not in the vocabulary"),
    ].map { (merges: [String], message: String) -> HostileFile in
      model("merges \(merges)", message) {
        $0.set("tokenizer.ggml.model", .string("gpt2"))
        $0.set("tokenizer.ggml.pre", .string("gpt-2"))
        $0.set("tokenizer.ggml.merges", .strings(merges))
      }
    }

  /// Valid models whose tokenizer has no form in transformers' files, or is not there.
  public static let tokenizers: [HostileFile] = [
    key("tokenizer.ggml.model", .string("bert"), "bert", exitCode: 0, "is 'bert', allowed are 'llama' and 'gpt2'"),
    key("tokenizer.ggml.tokens", nil, "absent", exitCode: 0, "the file has no vocabulary"),
    model("no merges", exitCode: 0, "metadata 'tokenizer.ggml.merges' is absent") {
      $0.set("tokenizer.ggml.model", .string("gpt2"))
      $0.set("tokenizer.ggml.pre", .string("gpt-2"))
    },
    model("unknown way of cutting words", exitCode: 0, "is 'no such', whose way of cutting words") {
      $0.set("tokenizer.ggml.model", .string("gpt2"))
      $0.set("tokenizer.ggml.pre", .string("no such"))
    },
  ]

  private static let tensorsOfModel: [HostileFile] =
    GGUFBuilder.llama.tensors.map { String(decoding: $0.name, as: UTF8.self) }.flatMap {
      (name: String) -> [HostileFile] in
      let misshapen = model(
        "\(name) of another shape", name == "token_embd.weight" ? "has 24 rows" : "the metadata makes it", tensor: name
      ) {
        $0.change(name) {
          $0.dimensions[$0.dimensions.count - 1] /= 2
          $0.data.removeLast($0.data.count / 2)
        }
      }
      // Without it, the token embedding makes the output.
      if name == "output.weight" { return [misshapen] }
      let absent = model("\(name) missing", "is missing", tensor: name) { builder in
        builder.tensors.removeAll { $0.name == Array(name.utf8) }
      }
      return [misshapen, absent]
    } + [
      model("a tensor of no role", exitCode: 69, "is not a weight that llama models have", tensor: "blk.0.x.weight") {
        $0.tensors.append(.init("blk.0.x.weight", 0, [1], [0, 0, 0, 0]))
      },
      model("a tensor of layer 7", "is of layer 7, the model has 1", tensor: "blk.7.attn_norm.weight") {
        $0.tensors.append(.init("blk.7.attn_norm.weight", 0, [32], [UInt8](repeating: 0, count: 128)))
      },
      model("a bias without the others", exitCode: 69, "either all of these biases or none") {
        $0.tensors.append(.init("blk.0.attn_q.bias", 0, [32], [UInt8](repeating: 0, count: 128)))
      },
      model("three dimensions", "has 3 dimensions, expected 2", tensor: "token_embd.weight") {
        $0.change("token_embd.weight") { $0.dimensions.append(1) }
      },
      model("factors in F64, one beyond float32", "is F64 of 4 elements", tensor: "rope_freqs.weight") {
        let factors = [1.0, 1, 1, 1e300].flatMap { TestModel.littleEndian($0.bitPattern, 8) }
        $0.tensors.append(.init("rope_freqs.weight", 28, [4], factors))
      },
      model("nothing but metadata", "is missing", tensor: "token_embd.weight") { $0.tensors = [] },
    ]
}
