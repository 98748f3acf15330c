extension HostileAdapter {
  private static let query = "model.layers.0.self_attn.q_proj"

  /// Values that are not finite, or do not stay so.
  static let values: [HostileAdapter] = factors + others + overflows

  private static let factors = badValues.flatMap { (value: Float, text: String) in
    ["F32", "BF16", "F16"].flatMap { (type: String) in
      [("A", 0), ("A", 127), ("B", 63)].map { (part: String, element: Int) in
        HostileAdapter(
          "\(text) in \(part) as \(type) at \(element)",
          "element \(element) is \(text), an adapter to be merged must be finite",
          tensor: "\(query).lora_\(part).weight"
        ) {
          $0.adapter = .llama(type: type)
          $0.adapter.set("\(query).lora_\(part).weight", element, value)
        }.beside { $0.adapter = .llama(type: type) }
      }
    }
  }

  private static let others = badValues.flatMap { (value: Float, text: String) -> [HostileAdapter] in
    [
      base(text, "\(query).weight", 1023, value, "element 1023 becomes"),
      base(text, "model.layers.1.self_attn.o_proj.weight", 1, value, "element 1 is \(text), a model to be merged"),
      base(text, "model.norm.weight", 31, value, "element 31 is \(text), a model to be merged"),
      whole(text, "lm_head.weight", [48, 32], value, "\(text)", file: "lm_head.weight"),
      HostileAdapter(
        "\(text) in a token's row", text
      ) {
        withRow(&$0)
        $0.adapter.set("model.embed_tokens.token_adapter.trainable_tokens_delta", 5, value)
      }.beside { withRow(&$0) },
      HostileAdapter(
        "\(text) in a magnitude", "element 3 is \(text), an adapter to be merged must be finite",
        tensor: "\(query).lora_magnitude_vector", twin: withMagnitudes
      ) {
        withMagnitudes(&$0)
        $0.adapter.set("\(query).lora_magnitude_vector", 3, value)
      },
      HostileAdapter(
        "\(text) in a bias of B", "element 31 is \(text), an adapter to be merged must be finite",
        tensor: "\(query).lora_B.bias", twin: withBias
      ) {
        withBias(&$0)
        $0.adapter.set("\(query).lora_B.bias", 31, value)
      },
    ]
  }

  private static let badValues: [(Float, String)] = [(.nan, "nan"), (.infinity, "inf"), (-.infinity, "-inf")]

  /// A value of the base.
  private static func base(
    _ text: String, _ name: String, _ element: Int, _ value: Float, _ message: String
  ) -> HostileAdapter {
    HostileAdapter("\(text) in the base's \(name)", "tensor '\(name)': \(message)") {
      $0.base.set(name, element, value)
    }
  }

  /// A value of a tensor that the adapter has whole.
  private static func whole(
    _ text: String, _ key: String, _ shape: [Int], _ value: Float, _ message: String, file: String
  ) -> HostileAdapter {
    HostileAdapter(
      "\(text) in a saved weight", "tensor '\(file)': element 40 is \(message)"
    ) {
      $0.adapter.add(key, shape)
      $0.adapter.set(key, 40, value)
    }.beside { $0.adapter.add(key, shape) }
  }

  @Sendable private static func withRow(_ pair: inout Pair) {
    pair.adapter.set("trainable_token_indices", "[47]")
    pair.adapter.add("model.embed_tokens.token_adapter.trainable_tokens_delta", [1, 32])
  }

  @Sendable private static func withMagnitudes(_ pair: inout Pair) {
    pair.adapter.set("use_dora", "true")
    for layer in 0..<2 {
      for module in ["self_attn.q_proj", "mlp.down_proj"] {
        pair.adapter.add("model.layers.\(layer).\(module).lora_magnitude_vector", [32])
      }
    }
  }

  @Sendable private static func withBias(_ pair: inout Pair) {
    pair.base = TestModel.llama(bias: true)
    pair.adapter.set("lora_bias", "true")
    pair.adapter.add("\(query).lora_B.bias", [32])
  }

  /// Finite factors whose sum is beyond what the output's type can hold.
  private static let overflows: [HostileAdapter] = [
    HostileAdapter(
      "sum beyond F16", "tensor '\(query).weight': element 33 becomes 72000.0, beyond the range of float16 (--dtype"
    ) { single(&$0, "F16", 12000, at: (1, 1), base: 60000) }.beside {
      single(&$0, "F16", 5500, at: (1, 1), base: 60000)
    },
    HostileAdapter(
      "sum beyond F16 by half a step", "tensor '\(query).weight': element 1023 becomes 65520.0, beyond the range"
    ) { single(&$0, "F16", 16, at: (31, 31), base: 65504) }.beside {
      single(&$0, "F16", 15, at: (31, 31), base: 65504)
    },
    HostileAdapter(
      "sum beyond BF16", "tensor '\(query).weight': element 0 becomes"
    ) { single(&$0, "BF16", 3e38, at: (0, 0), base: 3e38) }.beside {
      single(&$0, "BF16", 1e38, at: (0, 0), base: 1e38)
    },
    HostileAdapter(
      "sum beyond F32", "tensor '\(query).weight': element 0 becomes inf"
    ) { single(&$0, "F32", 3e38, at: (0, 0), base: 3e38) }.beside { single(&$0, "F32", 1e38, at: (0, 0), base: 1e38) },
    HostileAdapter(
      "saved weight beyond F16", "tensor 'model.norm.weight': element 7 is 70000.0, beyond the range of float16"
    ) { saved(&$0, 70000) }.beside { saved(&$0, 65504) },
    HostileAdapter(
      "token's row beyond F16",
      "tensor 'model.embed_tokens.weight': element 1509 becomes -65520.0, beyond the range of float16"
    ) { row(&$0, -65520) }.beside { row(&$0, -65519) },
    HostileAdapter(
      "scale beyond F32", "tensor '\(query).weight': element 0 becomes"
    ) {
      $0.adapter.set("lora_alpha", "1e300")
    }.beside { $0.adapter.set("lora_alpha", "1e30") },
    HostileAdapter(
      "magnitude of a weight of zeros", "tensor 'model.layers.0.mlp.up_proj.weight': element 0 becomes nan",
      warning: "all its deltas are zero"
    ) { zeros(&$0, scale: 0) }.beside { zeros(&$0, scale: 1) },
  ]

  /// One delta of one element; the base is zero but for the same element.
  private static func single(
    _ pair: inout Pair, _ type: String, _ value: Float, at place: (row: Int, column: Int), base: Float
  ) {
    pair.base = TestModel.llama(type: type)
    for element in 0..<1024 { pair.base.set("\(query).weight", element, 0) }
    pair.base.set("\(query).weight", place.row * 32 + place.column, base)
    var a = AdapterBuilder.linear(query, [32, 32], rank: 1)
    a[0].data = [UInt8](repeating: 0, count: a[0].data.count)
    a[1].data = [UInt8](repeating: 0, count: a[1].data.count)
    a[0].set(place.column, 1)
    a[1].set(place.row, value)
    pair.adapter = AdapterBuilder(a, rank: 1, alpha: 1)
  }

  private static func saved(_ pair: inout Pair, _ value: Float) {
    pair.base = TestModel.llama(type: "F16")
    pair.adapter.add("model.norm.weight", [32])
    pair.adapter.set("model.norm.weight", 7, value)
  }

  private static func row(_ pair: inout Pair, _ value: Float) {
    pair.base = TestModel.llama(type: "F16")
    withRow(&pair)
    pair.adapter.set("model.embed_tokens.token_adapter.trainable_tokens_delta", 5, value)
  }

  /// DoRA divides by the length of each row.
  private static func zeros(_ pair: inout Pair, scale: Float) {
    let module = "model.layers.0.mlp.up_proj"
    for element in 0..<64 * 32 { pair.base.set("\(module).weight", element, scale) }
    pair.adapter = AdapterBuilder(AdapterBuilder.linear(module, [64, 32]))
    for element in 0..<64 * 4 { pair.adapter.set("\(module).lora_B.weight", element, 0) }
    pair.adapter.set("use_dora", "true")
    pair.adapter.add("\(module).lora_magnitude_vector", [64])
  }
}
