import Bytes
import Tensors
import Testing

@testable import Architectures

/// One checkpoint's tensors and what must become of them.
struct PlanCase: Sendable, CustomTestStringConvertible {
  let architecture: String
  var ties: Bool?
  var target = LoaderTarget.transformers5
  var keep: [String] = []
  /// `name` for a matrix, `name 3` for another number of dimensions; `{a,b}` stands for each alternative.
  let quantized: [String]
  var transposed: [String] = []
  let kept: [(String, KeepReason)]
  let skipped: [String]
  var note = ""
  var testDescription: String { "\(architecture) \(target) \(note)" }
}

/// `a.{b,c}` → `a.b`, `a.c`; the last brace varies fastest.
private func expand(_ text: String) -> [String] {
  guard let open = text.firstIndex(of: "{"), let close = text[open...].firstIndex(of: "}") else { return [text] }
  let rest = expand(String(text[text.index(after: close)...]))
  return text[text.index(after: open)..<close].split(separator: ",").flatMap { option in
    rest.map { text[..<open] + option + $0 }
  }
}

private func tensor(_ text: String) throws -> TensorInfo {
  let words = text.split(separator: " ")
  let dimensions = words.count > 1 ? try #require(Int(words[1])) : 2
  return try TensorInfo(name: TensorName(String(words[0])), type: .bf16, shape: Array(repeating: 64, count: dimensions))
}

private let llamaLayer =
  "model.layers.{0,1}.{self_attn.q_proj,self_attn.k_proj,self_attn.v_proj,self_attn.o_proj,mlp.gate_proj,mlp.up_proj,mlp.down_proj}.weight"

let planCases: [PlanCase] = [
  PlanCase(
    architecture: "LlamaForCausalLM", quantized: [llamaLayer],
    kept: [
      ("model.embed_tokens.weight", .notLinear), ("model.layers.{0,1}.input_layernorm.weight 1", .notLinear),
      ("model.norm.weight 1", .notLinear), ("lm_head.weight", .outputEmbedding),
    ],
    skipped: ["lm_head"]),
  PlanCase(
    architecture: "Qwen2ForCausalLM", ties: true,
    quantized: [llamaLayer],
    kept: [
      ("model.embed_tokens.weight", .notLinear), ("model.layers.{0,1}.self_attn.{q,k,v}_proj.bias 1", .notLinear),
    ],
    skipped: ["lm_head"], note: "tied, no head in the file"),
  PlanCase(
    architecture: "LlamaForCausalLM", keep: ["model.layers.*.mlp.down_proj"],
    quantized: ["model.layers.{0,1}.mlp.{gate,up}_proj.weight"],
    kept: [("model.layers.{0,1}.mlp.down_proj.weight", .userKept), ("lm_head.weight", .outputEmbedding)],
    skipped: ["lm_head", "model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj"], note: "--keep"),
  PlanCase(
    architecture: "LlamaForSequenceClassification", quantized: [llamaLayer],
    kept: [("score.weight", .lastParameter), ("model.embed_tokens.weight", .notLinear)], skipped: ["score"]),
  PlanCase(
    architecture: "LlamaForTokenClassification", quantized: [llamaLayer, "score.weight"],
    kept: [("score.bias 1", .notLinear)], skipped: [], note: "the last parameter is a bias"),
  PlanCase(
    architecture: "LlamaModel", quantized: ["layers.{0,1}.self_attn.q_proj.weight"],
    kept: [("embed_tokens.weight", .notLinear)], skipped: ["lm_head", "qa_outputs", "score"],
    note: "no head of its own, but below one"),
  PlanCase(
    architecture: "Gemma3TextModel", quantized: ["layers.{0,1}.self_attn.q_proj.weight"],
    kept: [("embed_tokens.weight", .notLinear)], skipped: ["lm_head", "score"], note: "the causal class drops 'Text'"),
  PlanCase(
    architecture: "GPTNeoXModel", quantized: ["layers.0.attention.{query_key_value,dense}.weight"],
    kept: [("embed_in.weight", .notLinear)],
    skipped: ["classifier", "embed_out", "lm_head", "qa_outputs", "score"], note: "a head with two names"),
  PlanCase(
    architecture: "RobertaModel", quantized: ["encoder.layer.0.attention.{self.query,output.dense}.weight"],
    kept: [("embeddings.word_embeddings.weight", .notLinear)],
    skipped: [
      "classifier", "classifier.dense", "classifier.out_proj", "lm_head.decoder", "lm_head.dense", "pooler",
      "qa_outputs", "roberta.pooler",
    ], note: "without its pooler"),
  PlanCase(
    architecture: "ViTModel", quantized: ["encoder.layer.0.attention.attention.{query,key,value}.weight"],
    kept: [("embeddings.position_embeddings 3", .notLinear)], skipped: ["classifier", "pooler", "vit.pooler"],
    note: "without its pooler"),
  PlanCase(
    architecture: "ViTModel",
    quantized: ["encoder.layer.0.attention.attention.{query,key,value}.weight", "pooler.dense.weight"],
    kept: [("pooler.dense.bias 1", .notLinear)], skipped: ["classifier"], note: "with its pooler"),
  PlanCase(
    architecture: "OlmoModel",
    quantized: ["layers.{0,1,9,10}.mlp.gate_proj.weight", "layers.{0,1,9}.mlp.down_proj.weight"],
    kept: [("layers.10.mlp.down_proj.weight", .lastParameter)],
    skipped: ["layers.10.mlp.down_proj", "lm_head", "model.layers.10.mlp.down_proj", "score"],
    note: "the last layer's last weight, by number"),
  PlanCase(
    architecture: "T5ForConditionalGeneration", ties: false,
    quantized: [
      "encoder.block.{0,1}.layer.0.SelfAttention.{q,k,v,o}.weight",
      "decoder.block.0.layer.1.EncDecAttention.{q,k,v,o}.weight",
      "encoder.block.{0,1}.layer.1.DenseReluDense.{wi_0,wi_1}.weight",
    ],
    kept: [
      ("shared.weight", .notLinear),
      ("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", .notLinear),
      ("encoder.block.{0,1}.layer.1.DenseReluDense.wo.weight", .fp32Module), ("lm_head.weight", .outputEmbedding),
    ],
    skipped: [
      "encoder.block.0.layer.1.DenseReluDense.wo", "encoder.block.1.layer.1.DenseReluDense.wo", "lm_head",
    ], note: "v1.1"),
  PlanCase(
    architecture: "WhisperForConditionalGeneration",
    quantized: ["model.{encoder,decoder}.layers.0.{self_attn.q_proj,self_attn.out_proj,fc1,fc2}.weight"],
    kept: [
      ("model.encoder.embed_positions.weight", .notLinear), ("model.decoder.embed_positions.weight", .notLinear),
      ("model.decoder.embed_tokens.weight", .notLinear), ("model.encoder.conv1.weight 3", .notLinear),
    ],
    skipped: ["proj_out"], note: "tied head not in the file"),
  PlanCase(
    architecture: "GPT2LMHeadModel", quantized: [],
    transposed: ["transformer.h.{0,1}.{attn.c_attn,attn.c_proj,mlp.c_fc,mlp.c_proj}.weight"],
    kept: [("transformer.wte.weight", .notLinear), ("transformer.wpe.weight", .notLinear)], skipped: ["lm_head"]),
  PlanCase(
    architecture: "GPT2LMHeadModel", quantized: [], transposed: ["h.{0,1}.attn.c_attn.weight"],
    kept: [("wte.weight", .notLinear)], skipped: ["lm_head"], note: "stored without the base model's prefix"),
  PlanCase(
    architecture: "GraniteMoeForCausalLM", quantized: ["model.layers.{0,1}.self_attn.{q,k,v,o}_proj.weight"],
    kept: [
      ("model.layers.{0,1}.block_sparse_moe.{input_linear,output_linear}.weight 3", .expert),
      ("model.layers.{0,1}.block_sparse_moe.router.layer.weight", .router),
      ("lm_head.weight", .outputEmbedding),
    ],
    skipped: [
      "lm_head", "model.layers.0.block_sparse_moe.input_linear", "model.layers.0.block_sparse_moe.output_linear",
      "model.layers.0.block_sparse_moe.router.layer", "model.layers.1.block_sparse_moe.input_linear",
      "model.layers.1.block_sparse_moe.output_linear", "model.layers.1.block_sparse_moe.router.layer",
    ], note: "modules of stacked experts: what holds them is the layer"),
  PlanCase(
    architecture: "MixtralForCausalLM", quantized: ["model.layers.{0,1}.self_attn.{q,k,v,o}_proj.weight"],
    kept: [
      ("model.layers.{0,1}.block_sparse_moe.experts.{0,1}.{w1,w2,w3}.weight", .expert),
      ("model.layers.{0,1}.block_sparse_moe.gate.weight", .router), ("lm_head.weight", .outputEmbedding),
    ],
    skipped: [
      "lm_head", "model.layers.0.block_sparse_moe.experts", "model.layers.0.block_sparse_moe.gate",
      "model.layers.1.block_sparse_moe.experts", "model.layers.1.block_sparse_moe.gate",
    ], note: "experts one by one"),
  PlanCase(
    architecture: "MixtralForCausalLM", quantized: ["model.layers.{0,1}.self_attn.{q,k,v,o}_proj.weight"],
    kept: [
      ("model.layers.{0,1}.mlp.experts.{gate_up_proj,down_proj} 3", .expert),
      ("model.layers.{0,1}.mlp.gate.weight", .router),
    ],
    skipped: ["lm_head", "model.layers.0.mlp.gate", "model.layers.1.mlp.gate"], note: "experts fused"),
  PlanCase(
    architecture: "MixtralForCausalLM", target: .transformers4,
    quantized: [
      "model.layers.0.self_attn.{q,k,v,o}_proj.weight",
      "model.layers.0.block_sparse_moe.experts.{0,1}.{w1,w2,w3}.weight",
    ],
    kept: [("model.layers.0.block_sparse_moe.gate.weight", .router), ("lm_head.weight", .outputEmbedding)],
    skipped: ["lm_head", "model.layers.0.block_sparse_moe.gate"], note: "experts one by one"),
  PlanCase(
    architecture: "Qwen2MoeForCausalLM",
    quantized: [
      "model.layers.0.mlp.shared_expert.{gate,up,down}_proj.weight", "model.layers.0.mlp.shared_expert_gate.weight",
      "model.layers.1.mlp.{gate,up,down}_proj.weight",
    ],
    kept: [
      ("model.layers.0.mlp.experts.{0,1}.{gate,up,down}_proj.weight", .expert),
      ("model.layers.0.mlp.gate.weight", .router),
    ],
    skipped: ["lm_head", "model.layers.0.mlp.experts", "model.layers.0.mlp.gate"], note: "one layer dense"),
  PlanCase(
    architecture: "Qwen3MoeModel", quantized: ["layers.0.self_attn.{q,k,v,o}_proj.weight"],
    kept: [
      ("layers.0.mlp.experts.{0,1}.{gate,up,down}_proj.weight", .expert), ("layers.0.mlp.gate.weight", .router),
    ],
    skipped: [
      "layers.0.mlp.experts", "layers.0.mlp.gate", "lm_head", "model.layers.0.mlp.experts", "model.layers.0.mlp.gate",
      "qa_outputs", "score", "transformer.layers.0.mlp.experts", "transformer.layers.0.mlp.gate",
    ], note: "the class that answers questions has another name for the base"),
  PlanCase(
    architecture: "Gemma3ForConditionalGeneration",
    quantized: [
      "language_model.model.layers.0.self_attn.q_proj.weight",
      "vision_tower.vision_model.encoder.layers.0.{self_attn.q_proj,mlp.fc1}.weight",
    ],
    kept: [
      ("language_model.model.embed_tokens.weight", .notLinear),
      ("multi_modal_projector.mm_input_projection_weight", .notLinear),
      ("vision_tower.vision_model.embeddings.position_embedding.weight", .notLinear),
    ],
    skipped: ["lm_head"], note: "old names"),
  PlanCase(
    architecture: "LlavaForConditionalGeneration", keep: ["towers"],
    quantized: ["language_model.model.layers.0.self_attn.q_proj.weight"],
    kept: [
      ("language_model.lm_head.weight", .outputEmbedding), ("multi_modal_projector.linear_{1,2}.weight", .userKept),
      ("vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight", .userKept),
      ("vision_tower.vision_model.embeddings.patch_embedding.weight 4", .notLinear),
    ],
    skipped: [
      "language_model.lm_head", "lm_head", "model.multi_modal_projector.linear_1",
      "model.multi_modal_projector.linear_2",
      "model.vision_tower.encoder.layers.0.mlp.fc1",
    ], note: "old names, towers kept"),
  PlanCase(
    architecture: "ViTForImageClassification",
    quantized: [
      "vit.encoder.layer.0.attention.attention.{query,key,value}.weight",
      "vit.encoder.layer.0.intermediate.dense.weight",
      "classifier.weight",
    ],
    kept: [("classifier.bias 1", .notLinear), ("vit.embeddings.position_embeddings 3", .notLinear)], skipped: [],
    note: "a head with a bias"),
  PlanCase(
    architecture: "DistilBertForSequenceClassification",
    quantized: [
      "distilbert.transformer.layer.0.{attention.q_lin,attention.out_lin,ffn.lin1,ffn.lin2}.weight",
      "pre_classifier.weight", "classifier.weight",
    ],
    kept: [("distilbert.embeddings.{word,position}_embeddings.weight", .notLinear)], skipped: []),
  PlanCase(
    architecture: "BertForMaskedLM",
    quantized: [
      "bert.encoder.layer.0.{attention.self.query,attention.output.dense,intermediate.dense,output.dense}.weight",
      "cls.predictions.transform.dense.weight",
    ],
    kept: [
      ("bert.embeddings.{word,position,token_type}_embeddings.weight", .notLinear),
      ("cls.predictions.decoder.weight", .outputEmbedding), ("cls.predictions.transform.LayerNorm.gamma 1", .notLinear),
    ],
    skipped: ["cls.predictions.decoder"]),
  PlanCase(
    architecture: "FalconForCausalLM", quantized: [],
    kept: [
      ("transformer.h.0.self_attention.{query_key_value,dense}.weight", .notLinear),
      ("transformer.h.0.mlp.{dense_h_to_4h,dense_4h_to_h}.weight", .notLinear), ("lm_head.weight", .outputEmbedding),
    ],
    skipped: [
      "lm_head", "transformer.h.0.mlp.dense_4h_to_h", "transformer.h.0.mlp.dense_h_to_4h",
      "transformer.h.0.self_attention.dense", "transformer.h.0.self_attention.query_key_value",
    ], note: "FalconLinear is a subclass"),
  PlanCase(
    architecture: "BloomForCausalLM",
    quantized: ["transformer.h.0.{self_attention.query_key_value,self_attention.dense,mlp.dense_h_to_4h}.weight"],
    kept: [("transformer.word_embeddings.weight", .notLinear)], skipped: ["lm_head"]),
  PlanCase(
    architecture: "PhiForCausalLM",
    quantized: ["model.layers.0.{self_attn.q_proj,self_attn.dense,mlp.fc1,mlp.fc2}.weight"],
    kept: [("lm_head.weight", .outputEmbedding), ("lm_head.bias 1", .notLinear)], skipped: ["lm_head"]),
  PlanCase(
    architecture: "NomicBertModel",
    quantized: ["encoder.layers.0.mlp.{fc11,fc12,fc2}.weight"],
    kept: [("encoder.layers.0.attn.Wqkv.weight", .converted)],
    skipped: [
      "classifier", "cls.predictions.decoder", "cls.predictions.transform.dense", "encoder.layers.0.attn.Wqkv",
      "layers.0.self_attn.k_proj", "layers.0.self_attn.q_proj", "layers.0.self_attn.v_proj",
      "nomic_bert.encoder.layers.0.attn.Wqkv", "nomic_bert.layers.0.self_attn.k_proj",
      "nomic_bert.layers.0.self_attn.q_proj", "nomic_bert.layers.0.self_attn.v_proj",
    ], note: "a fused projection that the loader splits"),
]

@Suite struct PlanTests {
  /// The class that AutoModelForCausalLM makes of a base, where its name does not follow from the base's.
  @Test(arguments: [
    ("LlamaModel", "lm_head"), ("Gemma3TextModel", "lm_head"), ("Gemma3nTextModel", "lm_head"),
    ("Gemma4TextModel", "lm_head"), ("Qwen3_5TextModel", "lm_head"), ("Qwen3_5MoeTextModel", "lm_head"),
    ("Llama4TextModel", "lm_head"), ("CohereCompassTextModel", "lm_head"), ("ReformerModel", "lm_head.decoder"),
    ("BertGenerationEncoder", "lm_head.decoder"), ("GPTNeoXModel", "embed_out"), ("MoshiModel", "lm_head"),
    ("T5EncoderModel", "classifier"), ("UMT5EncoderModel", "classifier"), ("T5EncoderModel", "decoder.block"),
    ("ViTMAEModel", "decoder.decoder_layers"), ("Wav2Vec2Model", "tdnn"), ("CLIPTextModel", "text_projection"),
    ("CLIPVisionModel", "visual_projection"),
  ])
  func headsOfBases(_ architecture: String, _ head: String) {
    #expect(RuleText.embedded.heads(ofBase: architecture).contains(Array(head.utf8)))
  }

  @Test func headsOfNoBase() {
    for name in ["LlamaForCausalLM", "Model", "Encoder", "TextModel", "NobodysModel", ""] {
      #expect(RuleText.embedded.heads(ofBase: name).isEmpty)
    }
    #expect(!RuleText.embedded.heads(ofBase: "LlamaModel").contains(Array("embed_out".utf8)))
  }

  @Test(arguments: planCases) func plan(_ row: PlanCase) throws {
    var expected: [(TensorInfo, Disposition)] = []
    for text in row.quantized.flatMap(expand) { expected.append((try tensor(text), .quantize)) }
    for text in row.transposed.flatMap(expand) { expected.append((try tensor(text), .quantizeTransposed)) }
    for (text, reason) in row.kept {
      for text in expand(text) { expected.append((try tensor(text), .keep(reason))) }
    }
    let configuration = ModelConfiguration(architecture: row.architecture, tiesWordEmbeddings: row.ties)
    for order in [expected, expected.reversed()] {
      let plan = planWeights(
        order.map(\.0), configuration: configuration, target: row.target, keep: row.keep.map { Keep($0) })
      for ((info, wanted), given) in zip(order, plan.dispositions) { #expect(given == wanted, "\(info.name)") }
      #expect(plan.skipModules == row.skipped)
      #expect(plan.warnings == [])
      let experts = order.filter { $0.1 == .keep(.expert) }
      #expect(plan.expertTensors == experts.count)
      #expect(plan.expertBytes == experts.reduce(0) { $0 + $1.0.byteCount })
    }
  }
}
