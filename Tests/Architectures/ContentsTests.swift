import Bytes
import Tensors
import Testing

@testable import Architectures

/// A checkpoint of headers alone.
private struct Headers {
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

@Suite struct ContentsTests {
  @Test func wholeModelsPass() throws {
    for model in [Headers.llama, .mixture, .unstated, .fused, .gpt2] {
      let report = try model.report()
      #expect(report.faults.isEmpty && report.warnings.isEmpty && report.unused.isEmpty, "\(report)")
    }
  }

  /// Every weight of the model is asked for by name.
  @Test func eachWeightIsMissed() throws {
    for model in [Headers.llama, .mixture] {
      for (name, _) in model.tensors {
        let faults = try model.without(name).report().faults
        #expect(faults.contains { $0.tensor == name }, "\(name): \(faults)")
      }
    }
  }

  @Test func whatLoadersTolerate() throws {
    let llama = Headers.llama
    var tied = llama.without("lm_head.weight")
    tied.ties = true
    var tiedOtherWay = llama.without("model.embed_tokens.weight")
    tiedOtherWay.ties = true
    var bare = llama.without("lm_head.weight").renamed { String($0.dropFirst("model.".count)) }
    bare.architecture = "LlamaModel"
    var headless = bare
    headless.architecture = "LlamaForCausalLM"
    var classifier = llama.without("lm_head.weight")
    classifier.architecture = "LlamaForSequenceClassification"
    classifier.tensors.append(("score.weight", [2, 32]))
    var further = llama
    further.tensors.append(("model.layers.2.embed_tokens.weight", [48, 32]))
    var unsaid = llama
    unsaid.members = [:]
    var old = llama
    old.tensors.append(("model.layers.0.self_attn.rotary_emb.inv_freq", [4]))
    for (note, model) in [
      ("tied", tied), ("tied, stored as the head", tiedOtherWay), ("base", bare), ("base of a head's class", headless),
      ("classifier", classifier), ("more layers than counted", further), ("bare configuration", unsaid),
      ("buffers", old),
    ] {
      let report = try model.report()
      #expect(report.faults.isEmpty && report.warnings.isEmpty, "\(note): \(report)")
    }
    #expect(try further.report().unused == ["model.layers.2.embed_tokens.weight"])
    #expect(try old.report().unused.isEmpty)
  }

  @Test func classesWithAHeadHaveTheirBaseModel() throws {
    var classifier = Headers.llama.without("lm_head.weight").without("model.layers.1.mlp.up_proj.weight")
    classifier.architecture = "LlamaForSequenceClassification"
    classifier.tensors.append(("score.weight", [2, 32]))
    #expect(try classifier.report().faults.map(\.tensor) == ["model.layers.1.mlp.up_proj.weight"])
    var bare = classifier.without("score.weight").renamed { String($0.dropFirst("model.".count)) }
    bare.architecture = "LlamaModel"
    #expect(try bare.report().faults.map(\.tensor) == ["layers.1.mlp.up_proj.weight"])
  }

  @Test func shapes() throws {
    for (name, shape, text) in [
      ("model.embed_tokens.weight", [56, 32], "its dimension 0 is 48 (vocab_size)"),
      ("model.embed_tokens.weight", [40, 32], "its dimension 0 is 48 (vocab_size)"),
      ("lm_head.weight", [56, 32], "its dimension 0 is 48 (vocab_size)"),
      ("model.layers.1.mlp.down_proj.weight", [32, 97], "its dimension 1 is 96 (intermediate_size)"),
      ("model.layers.1.self_attn.k_proj.weight", [64, 32], "its dimension 0 is 16 (head_dim * num_key_value_heads)"),
      ("model.norm.weight", [33], "its dimension 0 is 32 (hidden_size)"),
      ("model.norm.weight", [32, 1], "wants 1 dimensions"), ("model.norm.weight", [0], "no values"),
    ] {
      let faults = try Headers.llama.with(name, shape).report().faults
      // An embedding of other rows than the output embedding is a second fault.
      #expect(faults.contains { $0.tensor == name && $0.problem.contains(text) }, "\(faults)")
    }
    // What the configuration does not say is not held to anything, but both embeddings have the same rows.
    var silent = Headers.llama.with("lm_head.weight", [56, 32])
    silent.members["vocab_size"] = nil
    #expect(try silent.report().faults.map(\.tensor) == ["lm_head.weight"])
    silent.set("model.embed_tokens.weight", [56, 32])
    #expect(try silent.report().faults.isEmpty)
  }

  /// However many shapes are wrong, what is not there is told.
  @Test func manyFaults() throws {
    var model = Headers.llama.without("model.norm.weight")
    for layer in 0..<2 {
      for name in ["q_proj", "k_proj", "v_proj", "o_proj"] {
        model.set("model.layers.\(layer).self_attn.\(name).weight", [7, 7])
      }
      model.set("model.layers.\(layer).mlp.up_proj.weight", [7, 7])
    }
    let report = try model.report()
    #expect(report.faultCount == 11 && report.faults.count == 9, "\(report)")
    #expect(report.faults.contains { $0.tensor == "model.norm.weight" })
  }

  /// What config.json leaves out is what the class makes of the rest.
  @Test func shapesByDefault() throws {
    for (model, name, shape, wanted) in [
      (Headers.unstated, "model.layers.1.self_attn.q_proj.weight", [40, 32], 32),
      (.unstated, "model.layers.0.self_attn.k_proj.weight", [32, 32], 16),
      (.fused, "model.layers.1.self_attn.qkv_proj.weight", [96, 32], 64),
      (.gpt2, "transformer.h.0.attn.c_attn.weight", [32, 97], 96),
      (.gpt2, "transformer.h.0.mlp.c_fc.weight", [32, 96], 128),
      (.gpt2, "transformer.h.0.mlp.c_proj.weight", [96, 32], 128),
    ] {
      let faults = try model.with(name, shape).report().faults
      #expect(faults.map(\.tensor) == [name] && faults[0].problem.contains(" is \(wanted) ("), "\(faults)")
    }
    // All layers alike.
    var all = Headers.unstated
    for layer in 0..<2 { all.set("model.layers.\(layer).self_attn.q_proj.weight", [40, 32]) }
    #expect(try all.report().faults.count == 2)
    // What is stated wins, under any of its names.
    var wide = Headers.gpt2
    wide.members["n_inner"] = 96
    #expect(try wide.report().faults.count == 3)
    for name in ["c_fc.weight", "c_fc.bias", "c_proj.weight"] {
      wide.set(
        "transformer.h.0.mlp.\(name)", name == "c_fc.bias" ? [96] : name == "c_fc.weight" ? [32, 96] : [96, 32])
    }
    #expect(try wide.report().faults.isEmpty)
    var renamed = Headers.gpt2
    renamed.members["hidden_size"] = renamed.members.removeValue(forKey: "n_embd")
    #expect(try renamed.report() == ContentsReport())
    #expect(try renamed.with("transformer.ln_f.weight", [33]).report().faults.count == 1)
    // Qwen3's mixtures have heads of a length that the class does not declare.
    var mixture = Headers.mixture
    mixture.members["num_experts"] = 3
    #expect(try mixture.report() == ContentsReport())
    mixture.members["num_experts"] = 4
    #expect(try mixture.report().faults.map(\.tensor).contains("model.layers.1.mlp.experts.3.gate_proj.weight"))
  }

  /// In T5, numbers within a layer tell attention and feed-forward apart.
  @Test func partsThatAreNumbered() throws {
    let t5 = Headers.t5
    let report = try t5.report()
    #expect(report.faults.isEmpty && report.warnings.isEmpty, "\(report)")
    // These two are one, and transformers 5 takes either for both.
    let embeddings = ["shared.weight", "lm_head.weight"]
    #expect(try t5.without("shared.weight").report().faults.isEmpty)
    #expect(try t5.without("shared.weight").without("lm_head.weight").report().faults.count == 1)
    for (name, _) in t5.tensors where !embeddings.contains(name) {
      let lacking = try t5.without(name).report()
      #expect(lacking.faults.map(\.tensor) == [name], "\(name): \(lacking)")
    }
    // A whole part.
    let headless = t5.changed { $0.removeAll { $0.name.hasPrefix("encoder.block.1.layer.1.") } }
    #expect(try headless.report().faults.contains { $0.tensor == "encoder.block.1.layer.1.DenseReluDense.wo.weight" })
  }

  /// Of a model whose language model may be another, what its layers have goes together.
  @Test func partsThatGoTogether() throws {
    for name in ["down_proj", "up_proj"] {
      let tensor = "language_model.model.layers.1.mlp.\(name).weight"
      let faults = try Headers.llava.without(tensor).report().faults
      #expect(faults.map(\.tensor) == ["model.language_model.layers.1.mlp.\(name).weight"], "\(faults)")
    }
    let report = try Headers.llava.report()
    #expect(report.faults.isEmpty, "\(report)")
  }

  @Test func heads() throws {
    var classifier = Headers.llama.without("lm_head.weight")
    classifier.architecture = "LlamaForSequenceClassification"
    #expect(try classifier.report().faults.map(\.tensor) == ["score.weight"])
    classifier.tensors.append(("score.weight", [2, 31]))
    #expect(try classifier.report().faults.map(\.tensor) == ["score.weight"])
    // Two labels unless the configuration names others.
    classifier.set("score.weight", [3, 32])
    #expect(try classifier.report().faults.map(\.tensor) == ["score.weight"])
    classifier.members["num_labels"] = 3
    #expect(try classifier.report() == ContentsReport())
  }

  /// Embeddings that the class ties whatever the configuration says.
  @Test func alwaysTied() throws {
    let report = try Headers.t5.without("lm_head.weight").report()
    #expect(report.faults.isEmpty && report.warnings.count == 1, "\(report)")
    #expect(report.warnings.first?.contains("transformers 5 ties it all the same") == true)
  }

  /// Of the two forms of T5's feed-forward, each layer has one.
  @Test func oneOfTwoForms() throws {
    let gates = ["wi_0", "wi_1"].map { "encoder.block.1.layer.1.DenseReluDense.\($0).weight" }
    let faults = try Headers.t5.without(gates[0]).without(gates[1]).report().faults
    #expect(faults.count == 1 && faults[0].problem.contains("and so is"), "\(faults)")
    #expect(gates.contains(faults[0].tensor) || faults[0].tensor.hasSuffix(".wi.weight"), "\(faults)")
    let narrow = try Headers.t5.with(gates[0], [95, 32]).report().faults
    #expect(narrow.map(\.tensor) == [gates[0]], "\(narrow)")
  }

  /// Lists within layers are as long as the configuration says.
  @Test func listsWithinLayers() throws {
    var model = Headers.llama
    model.architecture = "StableLmForCausalLM"
    for layer in 0..<2 {
      for part in ["q", "o"] { model.set("model.layers.\(layer).self_attn.\(part)_proj.weight", [32, 32]) }
      model.set("model.layers.\(layer).self_attn.k_proj.weight", [8, 32])
      model.set("model.layers.\(layer).self_attn.v_proj.weight", [8, 32])
      for norm in ["input", "post_attention"] {
        model.tensors.append(("model.layers.\(layer).\(norm)_layernorm.bias", [32]))
      }
      for (part, heads) in [("q", 8), ("k", 2)] {
        model.tensors += (0..<heads).map {
          ("model.layers.\(layer).self_attn.\(part)_layernorm.norms.\($0).weight", [4])
        }
      }
    }
    model.tensors.append(("model.norm.bias", [32]))
    #expect(try model.report() == ContentsReport())
    for name in ["q_layernorm.norms.7", "k_layernorm.norms.0"] {
      let tensor = "model.layers.1.self_attn.\(name).weight"
      #expect(try model.without(tensor).report().faults.map(\.tensor) == [tensor])
      #expect(try model.with(tensor, [5]).report().faults.map(\.tensor) == [tensor])
    }
    model.members["num_attention_heads"] = .max
    #expect(try !model.report().faults.isEmpty)
  }

  /// A bias that the configuration turns off is left out by loaders.
  @Test func biasesThatAreTurnedOff() throws {
    var model = Headers.llama
    for layer in 0..<2 {
      for (part, rows) in [("q_proj", 64), ("k_proj", 16), ("v_proj", 16), ("o_proj", 32)] {
        model.tensors.append(("model.layers.\(layer).self_attn.\(part).bias", [rows]))
      }
    }
    #expect(try model.report().unused.count == 8)
    model.members["attention_bias"] = 1
    #expect(try model.report() == ContentsReport())
    model.members["attention_bias"] = 0
    #expect(try model.report().unused.count == 8)
  }

  @Test func sizes() {
    func value(_ text: String) -> Int? {
      ConfiguredSize(Array(text.utf8)[...]).value { ["a": 7, "b": 2, "z": 0, "max": .max][$0] }
    }
    for (text, wanted) in [
      ("a", 7), ("2*a", 14), ("a/b", 3), ("a/b*b", 6), ("a*b/b", 7), ("a+2*a/b", 14), ("z", 0), ("-", nil), ("~", nil),
      ("c", nil), ("a+c", nil), ("a/z", nil), ("2*max", nil), ("max+a", nil),
    ] as [(String, Int?)] {
      #expect(value(text) == wanted, "\(text)")
    }
  }

  @Test func experts() throws {
    let name = "model.layers.1.mlp.experts.1"
    let narrow = try Headers.mixture.with("\(name).down_proj.weight", [32, 23]).report().faults
    #expect(narrow.map(\.tensor) == ["\(name).down_proj.weight"], "\(narrow)")
    var mixtral = Headers.mixture.changed { tensors in
      tensors.removeAll { $0.name.contains("_norm.") || $0.name.contains(".mlp.") }
      for layer in 0..<2 {
        tensors.append(("model.layers.\(layer).block_sparse_moe.gate.weight", [3, 32]))
        for expert in 0..<3 {
          for (part, shape) in [("w1", [96, 32]), ("w2", [32, 96]), ("w3", [96, 32])] {
            tensors.append(("model.layers.\(layer).block_sparse_moe.experts.\(expert).\(part).weight", shape))
          }
        }
      }
    }
    mixtral.architecture = "MixtralForCausalLM"
    mixtral.members["num_local_experts"] = 3
    #expect(try mixtral.report() == ContentsReport())
    let lower = mixtral.changed { tensors in
      for index in tensors.indices where tensors[index].name.contains(".w1.") { tensors[index].shape = [95, 32] }
    }
    let faults = try lower.report().faults
    #expect(faults.count == 2 && faults.allSatisfy { $0.problem.contains("one of 2 of [192, 32]") }, "\(faults)")
    let fewer = try mixtral.changed { $0.removeAll { $0.name.contains("experts.2.") } }.report().faults
    #expect(!fewer.isEmpty && fewer.allSatisfy { $0.problem.contains("there are 3 experts") }, "\(fewer)")
  }

  /// In 4 bits, weights of Conv1D lie the other way round.
  @Test func fourBitWeightsMayLieTheOtherWayRound() throws {
    let name = "model.layers.0.mlp.up_proj.weight"
    let turned = Headers.llama.with(name, [32, 96])
    #expect(try turned.report().faults.count == 1)
    #expect(try turned.report(isQuantized: [name]).faults.isEmpty)
  }

  @Test func layersThatAreCountedAndNotThere() throws {
    var model = Headers.llama
    model.members["num_hidden_layers"] = .max
    let faults = try model.report().faults
    #expect(!faults.isEmpty && faults.allSatisfy { $0.tensor.hasPrefix("model.layers.2.") }, "\(faults)")
    let none = Headers.llama.changed { $0.removeAll { $0.name.contains("layers") } }
    #expect(try none.report().faults.contains { $0.tensor.hasPrefix("model.layers.0.") })
  }

  @Test func biases() throws {
    var model = Headers.llama
    model.tensors.append(("model.layers.0.self_attn.q_proj.bias", [64]))
    // In one layer of two.
    #expect(try model.report().faults.isEmpty)
    for part in ["k_proj", "v_proj"] { model.tensors.append(("model.layers.0.self_attn.\(part).bias", [16])) }
    model.tensors.append(("model.layers.0.self_attn.o_proj.bias", [32]))
    #expect(try model.report().faults.isEmpty)
    model.tensors.append(("model.layers.1.self_attn.q_proj.bias", [64]))
    #expect(try model.report().faults.count == 3)
  }

  @Test func layersBeyondTheCount() throws {
    var model = Headers.llama
    model.members["num_hidden_layers"] = 1
    let report = try model.report()
    #expect(report.faults.isEmpty && report.unused.isEmpty && report.warnings.count == 1, "\(report)")
    let warning = "9 tensors are in layers beyond those that num_hidden_layers counts"
    #expect(report.warnings.first?.contains(warning) == true)
  }

  @Test func noneBelongs() throws {
    var foreign = Headers.llama.renamed { "x.\($0)" }
    let faults = try foreign.report().faults
    #expect(faults.count == 1 && faults[0].problem.contains("is no parameter of LlamaForCausalLM"), "\(faults)")
    // A class of the same name that the model brings along has names of its own.
    foreign.hasOwnCode = true
    #expect(try foreign.report().faults.isEmpty)
  }

  /// Where the class is not known, layers are held to each other.
  @Test func unknownClasses() throws {
    var model = Headers.llama
    model.architecture = "NovelForCausalLM"
    #expect(try model.report() == ContentsReport())
    let lacking = try model.without("model.layers.1.mlp.up_proj.weight").report()
    #expect(lacking.faults.isEmpty && lacking.warnings.count == 1)
    #expect(lacking.warnings.first?.contains("'model.layers.1' has no 'mlp.up_proj.weight' (1 of 2 have)") == true)
    model.architecture = nil
    #expect(try model.without("model.norm.weight").report() == ContentsReport())
  }

  /// A class whose linear layers are known, but not what else it has.
  @Test func classesWithoutContents() throws {
    let names = (0..<2).flatMap { layer in
      ["self_attn.q_proj", "self_attn.k_proj", "mlp.fc1"].map { "text_model.encoder.layers.\(layer).\($0).weight" }
    }
    let model = Headers(architecture: "CLIPSegModel", tensors: names.map { ($0, [32, 32]) }, members: [:])
    #expect(try model.report() == ContentsReport())
    let lacking = try model.without(names[5]).report()
    #expect(lacking.faults.isEmpty && lacking.warnings.count == 1, "\(lacking)")
    #expect(lacking.warnings.first?.contains("layers.1' has no 'mlp.fc1.weight' (1 of 2 have)") == true)
    // Another kind of layer.
    let other = model.renamed { $0 == names[5] ? $0.replacing("fc1", with: "gate") : $0 }
    #expect(try other.report() == ContentsReport())
  }
}
