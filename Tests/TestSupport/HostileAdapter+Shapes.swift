import Foundation

extension HostileAdapter {
  private static let query = "model.layers.0.self_attn.q_proj"
  private static let down = "model.layers.1.mlp.down_proj"

  /// A and B that do not fit each other or the base; never is anything repeated to make it fit.
  static let shapes: [HostileAdapter] =
    [
      shape("A one input short", "\(query).lora_A.weight", [4, 31], "[4, 31] and [32, 4] makes a delta of [32, 31]"),
      shape("A one input over", "\(query).lora_A.weight", [4, 33], "is [32, 32]"),
      shape("A of one column", "\(query).lora_A.weight", [4, 1], "makes a delta of [32, 1]"),
      shape(
        "B one output over", "\(query).lora_B.weight", [33, 4], "makes a delta of [33, 32]",
        tensor: "\(query).lora_A.weight"),
      shape(
        "B of one row", "\(query).lora_B.weight", [1, 4], "makes a delta of [1, 32]", tensor: "\(query).lora_A.weight"),
      shape(
        "other ranks", "\(query).lora_B.weight", [32, 5],
        "has rank 4, 'base_model.model.\(query).lora_B.weight' rank 5",
        tensor: "\(query).lora_A.weight"),
      shape("A in one dimension", "\(query).lora_A.weight", [128], "has shape [128], expected at least two dimensions"),
      shape("B in one dimension", "\(query).lora_B.weight", [128], "has shape [128], expected at least two dimensions"),
      shape("A in no dimension", "\(query).lora_A.weight", [], "has shape [], expected at least two dimensions"),
      shape("A of an odd kernel", "\(query).lora_A.weight", [4, 32, 2], "makes a delta of [32, 64]"),
      HostileAdapter("A and B swapped", "has rank 64, '", tensor: "\(down).lora_A.weight") {
        $0.adapter.reshape("\(down).lora_A.weight", [64, 4])
        $0.adapter.reshape("\(down).lora_B.weight", [4, 32])
      },
      HostileAdapter("delta of the transposed shape by its names", "has rank 32, '", tensor: "\(down).lora_A.weight") {
        $0.adapter.rename("\(down).lora_A.weight", "x")
        $0.adapter.rename("\(down).lora_B.weight", "\(AdapterBuilder.prefix)\(down).lora_A.weight")
        $0.adapter.rename("x", "")
        for index in $0.adapter.tensors.indices where $0.adapter.tensors[index].name == "x" {
          $0.adapter.tensors[index].name = "\(AdapterBuilder.prefix)\(down).lora_B.weight"
        }
      },
      HostileAdapter(
        "embedding's A and B as those of a layer",
        "makes a delta of [32, 48], but the base's 'model.embed_tokens.weight' is",
        tensor: "model.embed_tokens.lora_embedding_A"
      ) {
        $0.base.tensors[0] = TestModel.tensor("model.embed_tokens.weight", "BF16", [32, 48], seed: 1)
        for index in $0.base.tensors.indices where $0.base.tensors[index].name == "lm_head.weight" {
          $0.base.tensors[index] = TestModel.tensor("lm_head.weight", "BF16", [32, 32], seed: 2)
        }
        // Sizes that are not stated contradict no shape.
        for size in ["\"hidden_size\": 32, ", "\"vocab_size\": 48, "] {
          $0.base.config = $0.base.config?.replacingOccurrences(of: size, with: "")
        }
        $0.adapter.add("model.embed_tokens.lora_embedding_A", [4, 48])
        $0.adapter.add("model.embed_tokens.lora_embedding_B", [32, 4])
      }.beside {
        $0.adapter.add("model.embed_tokens.lora_embedding_A", [4, 48])
        $0.adapter.add("model.embed_tokens.lora_embedding_B", [32, 4])
      },
      HostileAdapter(
        "delta for a norm", "is [32]", tensor: "model.norm.lora_A.weight"
      ) {
        $0.adapter.add("model.norm.lora_A.weight", [4, 32])
        $0.adapter.add("model.norm.lora_B.weight", [32, 4])
      }.beside { $0.adapter.add("model.norm.weight", [32]) },
      HostileAdapter(
        "bias of another length", "has shape [31], the base's bias [32]", tensor: "\(query).lora_B.bias",
        twin: withBias([32])
      ) { withBias([31])(&$0) },
      HostileAdapter(
        "bias for a module without one", "but module '\(query)' of the base has none to add it to",
        tensor: "\(query).lora_B.bias", twin: withBias([32])
      ) {
        withBias([32])(&$0)
        $0.base = TestModel.llama()
      },
      HostileAdapter(
        "magnitude of another length", "has shape [31], expected [32]", tensor: "\(query).lora_magnitude_vector",
        twin: withMagnitudes
      ) {
        withMagnitudes(&$0)
        $0.adapter.reshape("\(query).lora_magnitude_vector", [31])
      },
      HostileAdapter(
        "magnitude missing", "has no lora_magnitude_vector beside it, which use_dora needs",
        tensor: "\(query).lora_A.weight", twin: withMagnitudes
      ) {
        withMagnitudes(&$0)
        $0.adapter.remove("\(query).lora_magnitude_vector")
      },
      HostileAdapter(
        "magnitude without use_dora", "stands in an adapter whose use_dora is false",
        tensor: "\(query).lora_magnitude_vector", twin: withMagnitudes
      ) {
        withMagnitudes(&$0)
        $0.adapter.set("use_dora", "false")
      },
      HostileAdapter(
        "token rows of another number",
        "has shape [2, 32], expected [3, 32]: a row for each of trainable_token_indices",
        tensor: "model.embed_tokens.token_adapter.trainable_tokens_delta", twin: withTokens("[1, 2, 47]")
      ) {
        withTokens("[1, 2, 47]")(&$0)
        $0.adapter.reshape("model.embed_tokens.token_adapter.trainable_tokens_delta", [2, 32])
      },
      HostileAdapter(
        "token beyond the vocabulary", "trainable_token_indices names token 48, the base has 48",
        tensor: "model.embed_tokens.token_adapter.trainable_tokens_delta", twin: withTokens("[0, 2, 47]")
      ) { withTokens("[0, 2, 48]")(&$0) },
      HostileAdapter(
        "token rows of another module", "has rows, but trainable_token_indices says nothing of 'model.embed_tokens'",
        tensor: "model.embed_tokens.token_adapter.trainable_tokens_delta",
        twin: withTokens("{\"embed_tokens\": [0, 1, 2]}")
      ) { withTokens("{\"lm_head\": [0, 1, 2]}")(&$0) },
      HostileAdapter(
        "resized embedding without its head",
        "has 50 tokens, the output embedding 'lm_head.weight' 48; the adapter must have both",
        tensor: "model.embed_tokens.weight"
      ) { $0.adapter.add("model.embed_tokens.weight", [50, 32]) }.beside {
        $0.adapter.add("model.embed_tokens.weight", [50, 32])
        $0.adapter.add("lm_head.weight", [50, 32])
      },
      HostileAdapter(
        "head of another width", "has shape [48, 33], the base's 'lm_head.weight' [48, 32]", tensor: "lm_head.weight"
      ) { $0.adapter.add("lm_head.weight", [48, 33]) }.beside { $0.adapter.add("lm_head.weight", [48, 32]) },
      HostileAdapter(
        "saved weight of another length", "has shape [33], the base's 'model.norm.weight' [32]",
        tensor: "model.norm.weight"
      ) { $0.adapter.add("model.norm.weight", [33]) }.beside { $0.adapter.add("model.norm.weight", [32]) },
    ] + blocks

  private static func shape(
    _ name: String, _ key: String, _ shape: [Int], _ message: String, tensor: String? = nil
  ) -> HostileAdapter {
    HostileAdapter(name, message, tensor: tensor ?? key) { $0.adapter.reshape(key, shape) }
  }

  private static func withBias(_ shape: [Int]) -> @Sendable (inout Pair) -> Void {
    {
      $0.base = TestModel.llama(bias: true)
      $0.adapter.set("lora_bias", "true")
      $0.adapter.add("\(query).lora_B.bias", shape)
    }
  }

  @Sendable private static func withMagnitudes(_ pair: inout Pair) {
    pair.adapter.set("use_dora", "true")
    for layer in 0..<2 {
      for module in ["self_attn.q_proj", "mlp.down_proj"] {
        pair.adapter.add("model.layers.\(layer).\(module).lora_magnitude_vector", [32])
      }
    }
  }

  private static func withTokens(_ json: String) -> @Sendable (inout Pair) -> Void {
    {
      $0.adapter.set("trainable_token_indices", json)
      $0.adapter.add("model.embed_tokens.token_adapter.trainable_tokens_delta", [3, 32])
    }
  }

  /// Factors that are stored in less than their own shape.
  private static let blocks: [HostileAdapter] = [
    HostileAdapter(
      "more blocks than ranks", "has 4 rows, not a multiple of 8 blocks", tensor: "\(query).lora_A.weight",
      twin: withBlocks(2)
    ) { withBlocks(8)(&$0) },
    HostileAdapter(
      "outputs that are no multiple of the blocks", "has 32 rows, not a multiple of 3 blocks",
      tensor: "\(query).lora_B.weight"
    ) {
      $0.adapter = .llama(rank: 6)
      $0.adapter.set("use_bdlora", "{\"nblocks\": 3, \"target_modules_bd_b\": [\"q_proj\"]}")
      for layer in 0..<2 { $0.adapter.reshape("model.layers.\(layer).self_attn.q_proj.lora_B.weight", [32, 2]) }
    }.beside {
      $0.adapter.set("use_bdlora", "{\"nblocks\": 2, \"target_modules_bd_b\": [\"q_proj\"]}")
      for layer in 0..<2 { $0.adapter.reshape("model.layers.\(layer).self_attn.q_proj.lora_B.weight", [32, 2]) }
    },
    HostileAdapter(
      "blocks of A and of B", "which both target_modules_bd_a and target_modules_bd_b name",
      tensor: "\(query).lora_A.weight",
      twin: withBlocks(2)
    ) {
      withBlocks(2)(&$0)
      $0.adapter.set(
        "use_bdlora",
        "{\"nblocks\": 2, \"target_modules_bd_a\": [\"q_proj\"], \"target_modules_bd_b\": [\"self_attn\"]}")
      for layer in 0..<2 { $0.adapter.reshape("model.layers.\(layer).self_attn.q_proj.lora_B.weight", [32, 2]) }
    },
    HostileAdapter(
      "groups that do not fill the inputs", "makes a delta of [32, 40]", tensor: "\(query).lora_A.weight",
      twin: withGroups([4, 4], 8)
    ) { withGroups([4, 5], 8)(&$0) },
    HostileAdapter(
      "groups of no size", "'qalora_group_size' is 0", twin: withGroups([4, 4], 8)
    ) { withGroups([4, 4], 0)(&$0) },
  ]

  private static func withBlocks(_ count: Int) -> @Sendable (inout Pair) -> Void {
    {
      $0.adapter.set("use_bdlora", "{\"nblocks\": \(count), \"target_modules_bd_a\": [\"q_proj\"]}")
      for layer in 0..<2 {
        $0.adapter.reshape("model.layers.\(layer).self_attn.q_proj.lora_A.weight", [4, 32 / count])
      }
    }
  }

  private static func withGroups(_ shape: [Int], _ size: Int) -> @Sendable (inout Pair) -> Void {
    {
      $0.adapter = .llama(modules: ["self_attn.q_proj"])
      $0.adapter.set("use_qalora", "true")
      $0.adapter.set("qalora_group_size", "\(size)")
      for layer in 0..<2 { $0.adapter.reshape("model.layers.\(layer).self_attn.q_proj.lora_A.weight", shape) }
    }
  }
}
