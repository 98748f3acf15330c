import Bytes
import Tensors
import Testing

@testable import Architectures

/// Members that go together, may be absent, or belong to one form of a class.
extension ContentsTests {
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
