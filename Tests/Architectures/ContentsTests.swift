import Bytes
import Tensors
import Testing

@testable import Architectures

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
}
