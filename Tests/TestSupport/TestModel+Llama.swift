extension TestModel {
  /// A Llama of a few thousand parameters: 32 wide, 64 inside, two heads share one key, 48 tokens.
  ///
  /// - Parameter bias: gives the query projection one.
  public static func llama(
    layers: Int = 2, type: String = "BF16", isTied: Bool = false, bias: Bool = false, seed: UInt64 = 1
  ) -> TestModel {
    var model = TestModel([tensor("model.embed_tokens.weight", type, [48, 32], seed: seed)])
    for layer in 0..<layers {
      let path = "model.layers.\(layer)"
      for (number, part) in llamaWeights.enumerated() {
        let own = seed &* 1000 &+ UInt64(16 * layer + number)
        model.tensors.append(tensor("\(path).\(part.module).weight", type, part.shape, seed: own))
      }
      if bias { model.tensors.append(tensor("\(path).self_attn.q_proj.bias", type, [32], seed: seed + 7)) }
      for norm in ["input_layernorm", "post_attention_layernorm"] {
        model.tensors.append(tensor("\(path).\(norm).weight", type, [32], seed: seed + 8))
      }
    }
    model.tensors.append(tensor("model.norm.weight", type, [32], seed: seed + 9))
    if !isTied { model.tensors.append(tensor("lm_head.weight", type, [48, 32], seed: seed + 10)) }
    let torch = ["BF16": "bfloat16", "F16": "float16", "F32": "float32"][type] ?? "float32"
    model.config =
      "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": 32, "
      + "\"num_hidden_layers\": \(layers), \"vocab_size\": 48, \"tie_word_embeddings\": \(isTied), "
      + "\"dtype\": \"\(torch)\"\(bias ? ", \"attention_bias\": true" : "")}"
    return model
  }

  /// The linear weights of one layer, `[outputs, inputs]`.
  public static let llamaWeights: [(module: String, shape: [Int])] = [
    ("self_attn.q_proj", [32, 32]), ("self_attn.k_proj", [16, 32]), ("self_attn.v_proj", [16, 32]),
    ("self_attn.o_proj", [32, 32]), ("mlp.gate_proj", [64, 32]), ("mlp.up_proj", [64, 32]),
    ("mlp.down_proj", [32, 64]),
  ]

  /// Position of a tensor.
  public func index(of name: String) -> Int? { tensors.firstIndex { $0.name == name } }

  /// Changes one element of a tensor.
  public mutating func set(_ name: String, _ element: Int, _ value: Float) {
    guard let index = index(of: name) else { return }
    tensors[index].set(element, value)
  }
}

extension SafetensorsBuilder.Tensor {
  public mutating func set(_ element: Int, _ value: Float) {
    let bytes = TestModel.bytes(of: [value], as: dtype)
    data.replaceSubrange(element * bytes.count..<(element + 1) * bytes.count, with: bytes)
  }
}
