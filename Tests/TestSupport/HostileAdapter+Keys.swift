extension HostileAdapter {
  private static let query = "model.layers.0.self_attn.q_proj"
  private static let embedding = "model.embed_tokens"

  /// Tensors that are missing, belong to nothing, or to a kind that nobody knows.
  static let keys: [HostileAdapter] = pairs + unmatched + prefixes + unknown + repeated

  private static let pairs: [HostileAdapter] = [
    HostileAdapter("A without B", "has no lora_B beside it in module '\(query)'", tensor: "\(query).lora_A.weight") {
      $0.adapter.remove("\(query).lora_B.weight")
    },
    HostileAdapter("B without A", "has no lora_A beside it in module '\(query)'", tensor: "\(query).lora_B.weight") {
      $0.adapter.remove("\(query).lora_A.weight")
    },
    HostileAdapter("neither A nor B", "holds no tensor") { $0.adapter.tensors = [] },
    HostileAdapter(
      "magnitude alone", "has no lora_A beside it", tensor: "model.layers.0.mlp.up_proj.lora_magnitude_vector"
    ) {
      $0.adapter.add("model.layers.0.mlp.up_proj.lora_magnitude_vector", [64])
    },
    HostileAdapter("bias of B alone", "has no lora_A beside it", tensor: "model.layers.0.mlp.up_proj.lora_B.bias") {
      $0.adapter.add("model.layers.0.mlp.up_proj.lora_B.bias", [64])
    },
    HostileAdapter(
      "embedding's A with a layer's B", "has no lora_embedding_B beside it", tensor: "\(embedding).lora_embedding_A"
    ) {
      $0.adapter.add("\(embedding).lora_embedding_A", [4, 48])
      $0.adapter.add("\(embedding).lora_B.weight", [32, 4])
    }.beside {
      $0.adapter.add("\(embedding).lora_embedding_A", [4, 48])
      $0.adapter.add("\(embedding).lora_embedding_B", [32, 4])
    },
    empty("\(query).lora_A.weight", [0]), empty("\(query).lora_B.weight", [0]),
    empty("\(query).lora_A.weight", [0, 32]),
    empty("\(query).lora_B.weight", [32, 0]),
  ]

  /// What ZeRO-3 leaves of a parameter that was not gathered.
  private static func empty(_ key: String, _ shape: [Int]) -> HostileAdapter {
    HostileAdapter(
      "\(key.suffix(13)) \(shape)", "has shape \(shape): an empty tensor, as training with ZeRO-3 leaves", tensor: key
    ) { $0.adapter.reshape(key, shape) }
  }

  private static let unmatched: [HostileAdapter] = [
    HostileAdapter(
      "module misspelled",
      "2 of the adapter's 8 tensors belong to nothing in the base: "
        + "'base_model.model.model.layers.0.self_attn.q_prj.lora_A.weight' (nearest: '\(query).weight'), ",
      tensor: "model.layers.0.self_attn.q_prj.lora_A.weight"
    ) {
      for part in ["A", "B"] {
        $0.adapter.rename(
          "\(query).lora_\(part).weight", "\(AdapterBuilder.prefix)model.layers.0.self_attn.q_prj.lora_\(part).weight")
      }
    },
    HostileAdapter(
      "more layers than the base", "4 of the adapter's 12 tensors belong to nothing",
      tensor: "model.layers.2.self_attn.q_proj.lora_A.weight"
    ) { $0.adapter = .llama(layers: 3) },
    HostileAdapter(
      "another model's modules", "8 of the adapter's 8 tensors belong to nothing in the base: ",
      tensor: "transformer.h.0.attn.c_attn.lora_A.weight"
    ) {
      for index in $0.adapter.tensors.indices {
        let part = index % 2 == 0 ? "A" : "B"
        $0.adapter.tensors[index].name =
          "\(AdapterBuilder.prefix)transformer.h.\(index / 2).attn.c_attn.lora_\(part).weight"
      }
    },
    HostileAdapter(
      "module with a control character", "belong to nothing in the base: ", tensor: "model.\u{1b}[31m.lora_A.weight"
    ) {
      $0.adapter.rename("\(query).lora_A.weight", "\(AdapterBuilder.prefix)model.\\u001b[31m.lora_A.weight")
      $0.adapter.rename("\(query).lora_B.weight", "\(AdapterBuilder.prefix)model.\\u001b[31m.lora_B.weight")
    },
    HostileAdapter(
      "token rows of no embedding", "1 of the adapter's 9 tensors belong to nothing",
      tensor: "wte.token_adapter.trainable_tokens_delta"
    ) { $0.adapter.add("wte.token_adapter.trainable_tokens_delta", [1, 32]) },
    HostileAdapter(
      "bias of no module", "1 of the adapter's 9 tensors belong to nothing", tensor: "\(query).bias"
    ) { $0.adapter.add("\(query).bias", [32]) }.beside {
      $0.base = TestModel.llama(bias: true)
      $0.adapter.add("\(query).bias", [32])
    },
    HostileAdapter(
      "saved module of no base", "1 of the adapter's 9 tensors belong to nothing", tensor: "score.weight",
      warning: "'score.weight' is not in the base"
    ) { $0.adapter.add("score.weight", [2, 32]) }.beside {
      $0.adapter.set("modules_to_save", "[\"score\"]")
      $0.adapter.add("score.weight", [2, 32])
    },
  ]

  private static let prefixes = ["", "model.", "base_model.base_model.", "base_model_model."].map { (prefix: String) in
    HostileAdapter("prefix '\(prefix)'", "does not begin with 'base_model.model.'") {
      for index in $0.adapter.tensors.indices {
        let name = $0.adapter.tensors[index].name
        $0.adapter.tensors[index].name = prefix + name.dropFirst(AdapterBuilder.prefix.count)
      }
    }
  }

  private static let unknown: [HostileAdapter] = [
    "\(query).vera_lambda_b", "\(query).hada_w1_a", "\(query).lokr_w1", "\(query).lora_C.weight", "\(query).lora_diag",
    "\(query).lora_A.bias", "\(query).lora_A.default.weight.absmax", "\(query).lora_B.default.absmax",
    "\(query).lora_embedding_A.bias", "\(query).lora_magnitude_vector.bias", "\(query).oft_r.weight.x",
    "prompt_embeddings",
    "\(embedding).token_adapter.weight", "weight", "", ".", "\(query).ia3_l",
  ].map { (key: String) in
    HostileAdapter(
      "key '\(key)'", exitCode: 69, "belongs to no kind of adapter that can be merged", tensor: key
    ) { $0.adapter.add(key, [32]) }.beside { $0.adapter.add("\(query).original_module.weight", [1]) }
  }

  /// The same thing under two spellings.
  private static let repeated: [HostileAdapter] = [
    again("\(query).lora_A.weight", "\(query).lora_A.default.weight", [4, 32]),
    again("\(query).lora_B.weight", "_orig_mod.\(query).lora_B.weight", [32, 4]),
    again("\(query).lora_A.weight", "_fsdp_wrapped_module.\(query).lora_A", [4, 32]),
    HostileAdapter(
      "weight replaced twice", "means the same as 'base_model.model.lm_head.weight' and has other values",
      tensor: "lm_head.modules_to_save.default.weight"
    ) {
      $0.adapter.add("lm_head.weight", [48, 32])
      $0.adapter.add("lm_head.modules_to_save.default.weight", [48, 32], seed: 78)
    }.beside {
      $0.adapter.add("lm_head.weight", [48, 32])
      $0.adapter.add("lm_head.modules_to_save.default.weight", [48, 32])
      $0.adapter.add("lm_head.original_module.weight", [48, 32], seed: 78)
    },
    HostileAdapter(
      "weight replaced with and without the base's prefix", "replaces 'model.embed_tokens.weight', which",
      tensor: "embed_tokens.weight"
    ) {
      $0.adapter.add("model.embed_tokens.weight", [48, 32])
      $0.adapter.add("embed_tokens.weight", [48, 32], seed: 78)
    }.beside {
      $0.adapter.add("model.embed_tokens.weight", [48, 32])
      $0.adapter.add("embed_tokens.weight", [48, 32])
    },
    adapted("with and without the base's prefix", "layers.0.self_attn.q_proj"),
    adapted("outside and inside its wrapper", "\(query).base_layer", isInside: true),
    HostileAdapter(
      "token rows twice", "has a row for token 1, as 'adapter' has",
      tensor: "embed_tokens.token_adapter.trainable_tokens_delta"
    ) {
      $0.adapter.set("trainable_token_indices", "[1]")
      $0.adapter.add("model.embed_tokens.token_adapter.trainable_tokens_delta", [1, 32])
      $0.adapter.add("embed_tokens.token_adapter.trainable_tokens_delta", [1, 32])
    }.beside {
      $0.adapter.set("trainable_token_indices", "[1]")
      $0.adapter.add("embed_tokens.token_adapter.trainable_tokens_delta", [1, 32])
    },
  ]

  private static func again(_ key: String, _ other: String, _ shape: [Int]) -> HostileAdapter {
    HostileAdapter(
      "tensor twice, as '\(other)'", "means the same as 'base_model.model.\(key)'", tensor: other
    ) { $0.adapter.add(other, shape) }.beside { $0.adapter.rename(key, AdapterBuilder.prefix + other) }
  }

  /// One weight with two deltas from the same adapter; the one inside comes first.
  private static func adapted(_ name: String, _ path: String, isInside: Bool = false) -> HostileAdapter {
    HostileAdapter(
      "weight adapted twice, \(name)",
      "adapts '\(query).weight', which another tensor of the adapter adapts already",
      tensor: "\(isInside ? query : path).lora_A.weight"
    ) {
      $0.adapter.add("\(path).lora_A.weight", [4, 32])
      $0.adapter.add("\(path).lora_B.weight", [32, 4])
    }.beside { pair in
      for part in ["A", "B"] {
        pair.adapter.rename("\(query).lora_\(part).weight", "\(AdapterBuilder.prefix)\(path).lora_\(part).weight")
      }
    }
  }
}
