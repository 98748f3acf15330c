import Bytes
import Tensors

@testable import Architectures

/// A checkpoint of headers alone.
struct Headers {
  var architecture: String?
  var ties: Bool? = false
  var hasOwnCode = false
  var tensors: [(name: String, shape: [Int])]
  var members: [String: Int]

  func report(isQuantized: Set<String> = []) throws -> ContentsReport {
    checkContents(
      try tensors.map { try TensorInfo(name: TensorName($0.name), type: .bf16, shape: $0.shape) },
      isQuantized: tensors.map { isQuantized.contains($0.name) },
      configuration: ModelConfiguration(architecture: architecture, tiesWordEmbeddings: ties), hasOwnCode: hasOwnCode
    ) { members[$0] }
  }

  func without(_ name: String) -> Headers { changed { $0.removeAll { $0.name == name } } }

  func changed(_ change: (inout [(name: String, shape: [Int])]) -> Void) -> Headers {
    var copy = self
    change(&copy.tensors)
    return copy
  }

  func renamed(_ change: (String) -> String) -> Headers {
    changed { tensors in for index in tensors.indices { tensors[index].name = change(tensors[index].name) } }
  }

  mutating func set(_ name: String, _ shape: [Int]) {
    for index in tensors.indices where tensors[index].name == name { tensors[index].shape = shape }
  }

  func with(_ name: String, _ shape: [Int]) -> Headers {
    var copy = self
    copy.set(name, shape)
    return copy
  }

  private static let attention: [(String, [Int])] = [
    ("self_attn.q_proj.weight", [64, 32]), ("self_attn.k_proj.weight", [16, 32]),
    ("self_attn.v_proj.weight", [16, 32]),
    ("self_attn.o_proj.weight", [32, 64]), ("input_layernorm.weight", [32]), ("post_attention_layernorm.weight", [32]),
  ]
  private static let dense: [(String, [Int])] = [
    ("mlp.gate_proj.weight", [96, 32]), ("mlp.up_proj.weight", [96, 32]), ("mlp.down_proj.weight", [32, 96]),
  ]
  private static let sizes = [
    "hidden_size": 32, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 8,
    "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 48,
  ]

  private static func whole(_ layers: [[(String, [Int])]]) -> [(name: String, shape: [Int])] {
    var tensors: [(name: String, shape: [Int])] = [
      ("model.embed_tokens.weight", [48, 32]), ("model.norm.weight", [32]),
    ]
    for (number, layer) in layers.enumerated() {
      tensors += layer.map { ("model.layers.\(number).\($0.0)", $0.1) }
    }
    return tensors + [("lm_head.weight", [48, 32])]
  }

  static let llama = Headers(
    architecture: "LlamaForCausalLM", tensors: whole([attention + dense, attention + dense]), members: sizes)

  /// One layer dense, one of three experts that are stored one by one.
  static let mixture = Headers(
    architecture: "Qwen3MoeForCausalLM",
    tensors: whole([
      attention + norms + dense,
      attention + norms + [("mlp.gate.weight", [3, 32])]
        + (0..<3).flatMap { expert in
          ["gate_proj", "up_proj", "down_proj"].map { part in
            ("mlp.experts.\(expert).\(part).weight", part == "down_proj" ? [32, 24] : [24, 32])
          }
        },
    ]), members: sizes)

  /// Length of a head and width of the MLP are not stated; nor is that there are fewer heads of keys.
  static let unstated: Headers = {
    var model = llama
    model.members["num_attention_heads"] = 4
    model.members["head_dim"] = nil
    for layer in 0..<2 {
      for part in ["q", "o"] { model.set("model.layers.\(layer).self_attn.\(part)_proj.weight", [32, 32]) }
    }
    return model
  }()

  static let fused: Headers = {
    var model = Headers(
      architecture: "Phi3ForCausalLM",
      tensors: whole(
        Array(
          repeating: [
            ("self_attn.qkv_proj.weight", [64, 32]), ("self_attn.o_proj.weight", [32, 32]),
            ("mlp.gate_up_proj.weight", [192, 32]), ("mlp.down_proj.weight", [32, 96]),
            ("input_layernorm.weight", [32]), ("post_attention_layernorm.weight", [32]),
          ], count: 2)), members: unstated.members)
    return model
  }()

  static let gpt2 = Headers(
    architecture: "GPT2LMHeadModel", ties: true,
    tensors: [
      ("transformer.wte.weight", [48, 32]), ("transformer.wpe.weight", [16, 32]),
      ("transformer.ln_f.weight", [32]), ("transformer.ln_f.bias", [32]),
      ("transformer.h.0.ln_1.weight", [32]), ("transformer.h.0.ln_1.bias", [32]),
      ("transformer.h.0.ln_2.weight", [32]), ("transformer.h.0.ln_2.bias", [32]),
      ("transformer.h.0.attn.c_attn.weight", [32, 96]), ("transformer.h.0.attn.c_attn.bias", [96]),
      ("transformer.h.0.attn.c_proj.weight", [32, 32]), ("transformer.h.0.attn.c_proj.bias", [32]),
      ("transformer.h.0.mlp.c_fc.weight", [32, 128]), ("transformer.h.0.mlp.c_fc.bias", [128]),
      ("transformer.h.0.mlp.c_proj.weight", [128, 32]), ("transformer.h.0.mlp.c_proj.bias", [32]),
    ], members: ["n_embd": 32, "n_layer": 1, "n_head": 4, "n_positions": 16, "vocab_size": 48])

  static let t5: Headers = {
    func attention(_ name: String) -> [(String, [Int])] {
      ["q", "k", "v"].map { ("\(name).\($0).weight", [64, 32]) } + [("\(name).o.weight", [32, 64])]
    }
    let dense: [(String, [Int])] = [
      ("DenseReluDense.wi_0.weight", [96, 32]), ("DenseReluDense.wi_1.weight", [96, 32]),
      ("DenseReluDense.wo.weight", [32, 96]),
    ]
    var tensors: [(name: String, shape: [Int])] = [("shared.weight", [48, 32]), ("lm_head.weight", [48, 32])]
    for (side, parts) in [
      ("encoder", [attention("SelfAttention"), dense]),
      ("decoder", [attention("SelfAttention"), attention("EncDecAttention"), dense]),
    ] {
      tensors.append(("\(side).final_layer_norm.weight", [32]))
      tensors.append(("\(side).block.0.layer.0.SelfAttention.relative_attention_bias.weight", [32, 8]))
      for layer in 0..<2 {
        for (number, part) in parts.enumerated() {
          tensors += (part + [("layer_norm.weight", [32])]).map {
            ("\(side).block.\(layer).layer.\(number).\($0.0)", $0.1)
          }
        }
      }
    }
    return Headers(
      architecture: "T5ForConditionalGeneration", tensors: tensors,
      members: [
        "d_model": 32, "d_ff": 96, "d_kv": 8, "num_heads": 8, "num_layers": 2, "num_decoder_layers": 2,
        "vocab_size": 48, "relative_attention_num_buckets": 32,
      ])
  }()

  /// The language model alone, as older releases name it.
  static let llava = Headers(
    architecture: "LlavaForConditionalGeneration",
    tensors: llama.tensors.map { ("language_model.\($0.name)", $0.shape) }
      + [("multi_modal_projector.linear_1.weight", [32, 32]), ("multi_modal_projector.linear_2.weight", [32, 32])],
    members: Dictionary(uniqueKeysWithValues: sizes.map { ("text_config.\($0)", $1) }))

  private static let norms: [(String, [Int])] = [("self_attn.q_norm.weight", [8]), ("self_attn.k_norm.weight", [8])]
}
