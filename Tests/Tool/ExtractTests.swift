import Foundation
import JSON
import TestSupport
import Testing

/// `extract-lora`: what it answers, what it refuses, what it leaves behind.
@Suite struct ExtractTests {
  let directory: TemporaryDirectory
  let base: String
  /// The base with an adapter of rank 4 merged into q_proj and down_proj of both layers.
  let tuned: String
  let out: String

  init() throws {
    directory = try TemporaryDirectory()
    base = try TestModel.llama().write(to: directory, "base")
    let adapter = try AdapterBuilder.llama().write(to: directory)
    tuned = directory.path("tuned")
    out = directory.path("out")
    let run = try Tool.run("merge", base, adapter, "-o", tuned, "--quiet")
    try #require(run.status == 0, "\(run.error)")
  }

  private func extract(
    _ tuned: String? = nil, to name: String = "out", rank: Int = 4, options: [String] = [],
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws -> JSONValue {
    let words = ["extract-lora", base, tuned ?? self.tuned, "--rank", "\(rank)", "-o", directory.path(name), "--json"]
    let run = try Tool.run(words + options, sourceLocation: sourceLocation)
    #expect(run.status == 0, "\(run.error)", sourceLocation: sourceLocation)
    return try #require(parse(run.output, sourceLocation), sourceLocation: sourceLocation)
  }

  private func refuse(
    _ status: Int32, _ message: String, tensor: String? = nil, base: String? = nil, tuned: String? = nil,
    options: [String] = ["--rank", "4"], sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let before = try Snapshot(directory.path)
    let words = ["extract-lora", base ?? self.base, tuned ?? self.tuned, "-o", directory.path("refused"), "--quiet"]
    let run = try Tool.run(words + options + ["--json"], sourceLocation: sourceLocation)
    Refusal(status: status, message: message, tensor: tensor).check(run, "extract-lora", sourceLocation)
    let plain = try Tool.run(words + options, sourceLocation: sourceLocation)
    #expect(plain.status == status && plain.error == run.error && plain.output == "", sourceLocation: sourceLocation)
    #expect(try Snapshot(directory.path) == before, "something was written", sourceLocation: sourceLocation)
  }

  /// The tuned model with one tensor changed.
  private func altered(
    _ name: String, from source: TestModel? = nil, _ change: (inout SafetensorsBuilder.Tensor) -> Void
  ) throws -> String {
    var model = source ?? TestModel.llama()
    let index = try #require(model.tensors.firstIndex { $0.name == name })
    change(&model.tensors[index])
    return try model.write(to: directory, "altered")
  }

  private static let query = "model.layers.1.self_attn.q_proj.weight"

  /// Of every third BF16 value the sign is turned.
  private static func negateSome(_ tensor: inout SafetensorsBuilder.Tensor) {
    for index in stride(from: 1, to: tensor.data.count, by: 6) { tensor.data[index] ^= 0x80 }
  }

  // MARK: - The answer

  @Test func report() throws {
    let json = try extract()
    #expect(
      json.object.map { Array($0.keys) } == [
        "output", "files", "rank", "modules", "energy", "relativeChange", "saved", "notCaptured", "bytesOut",
        "warnings", "seconds",
      ])
    #expect(json["output"]?.string == out && json["rank"]?.int == 4)
    let files = ["adapter_config.json", "adapter_model.safetensors", "checksums.xxh128", "nibble-manifest.json"]
    #expect(json["files"]?.array?.compactMap(\.string) == files)
    #expect(try FileManager.default.contentsOfDirectory(atPath: out).sorted() == files)
    let modules = try #require(json["modules"]?.array)
    #expect(modules.count == 4)
    for module in modules {
      #expect(
        module.object.map { Array($0.keys) } == ["module", "rank", "energy", "relativeChange", "singularValues"])
      #expect(module["module"]?.string?.hasPrefix("model.layers.") == true && module["rank"]?.int == 4)
      // What rounding to BF16 leaves.
      #expect(try #require(module["energy"]?.double) > 0.999)
      #expect(try #require(module["relativeChange"]?.double) > 0)
      let values = try #require(module["singularValues"]?.array).compactMap(\.double)
      #expect(values.count == 4 && values == values.sorted(by: >))
    }
    #expect(try #require(json["energy"]?.double) > 0.999)
    #expect(json["notCaptured"]?.array?.isEmpty == true && json["warnings"]?.array?.isEmpty == true)
    let verified = try Tool.run("verify", out)
    #expect(verified.status == 0, "\(verified.output)")
  }

  @Test func text() throws {
    let run = try Tool.run("extract-lora", base, tuned, "--rank", "4", "-o", out)
    #expect(run.status == 0 && run.error == "", "\(run.error)")
    let lines = run.output.split(separator: "\n")
    #expect(lines.count == 7 && lines[0].hasPrefix("module ") && lines[1].contains(" %"), "\(run.output)")
    #expect(lines[5].hasPrefix("4 modules: rank 4 holds 99.9"), "\(run.output)")
    #expect(lines[6].hasPrefix("wrote \(out): 4 files, "), "\(run.output)")
    let quiet = try Tool.run("extract-lora", base, tuned, "--rank", "4", "-o", out, "--force", "--quiet")
    #expect(quiet.status == 0 && quiet.output.split(separator: "\n").count == 1 && quiet.error == "")
  }

  @Test func configuration() throws {
    _ = try extract()
    let config = try #require(parse(String(decoding: directory.read("out/adapter_config.json"), as: UTF8.self)))
    #expect(config["r"]?.int == 4 && config["lora_alpha"]?.int == 4 && config["peft_type"]?.string == "LORA")
    #expect(config["target_modules"]?.array?.compactMap(\.string) == ["down_proj", "q_proj"])
    #expect(config["base_model_name_or_path"]?.string == base && config["task_type"]?.string == "CAUSAL_LM")
    #expect(config["inference_mode"]?.bool == true && config["bias"]?.string == "none")
    #expect(config["fan_in_fan_out"]?.bool == false && config["modules_to_save"]?.isNull == true)
    // One of two layers only: whole paths.
    _ = try extract(to: "one", options: ["--target", "model.layers.1.*"])
    let one = try #require(parse(String(decoding: directory.read("one/adapter_config.json"), as: UTF8.self)))
    #expect(
      one["target_modules"]?.array?.compactMap(\.string) == [
        "model.layers.1.mlp.down_proj", "model.layers.1.self_attn.q_proj",
      ])
  }

  /// Merged back, the adapter gives the tuned model but for the last bits.
  @Test(arguments: ["float32", "bfloat16", "float16"])
  func roundTrip(_ type: String) throws {
    let json = try extract(options: ["--dtype", type])
    #expect(try #require(json["energy"]?.double) > 0.999)
    let again = directory.path("again")
    let merged = try Tool.run("merge", base, out, "-o", again, "--quiet")
    #expect(merged.status == 0, "\(merged.error)")
    let difference = try #require(parse(Tool.run("diff", tuned, again, "--json").output))
    for change in try #require(difference["changed"]?.array) {
      #expect(try #require(change["relative"]?.double) < 0.005, "\(change)")
    }
    let inspected = try #require(parse(Tool.run("inspect", out, "--json").output)?["tensors"]?.array)
    let names = ["float32": "F32", "bfloat16": "BF16", "float16": "F16"]
    #expect(inspected.count == 8 && inspected.allSatisfy { $0["dtype"]?.string == names[type] })
  }

  @Test func sameBytesWhateverTheJobs() throws {
    var files: [[[UInt8]]] = []
    for jobs in ["1", "2", "5"] {
      _ = try extract(to: jobs, options: ["--jobs", jobs])
      files.append(try directory.names(in: jobs).map { try directory.read("\(jobs)/\($0)") })
    }
    #expect(files[0] == files[1] && files[0] == files[2])
  }

  @Test func dryRun() throws {
    let before = try Snapshot(directory.path)
    let json = try extract(options: ["--dry-run"])
    #expect(try Snapshot(directory.path) == before)
    // From headers nobody can tell which of the 14 changed.
    let modules = try #require(json["modules"]?.array)
    #expect(modules.count == 14 && modules.allSatisfy { $0["energy"]?.isNull == true })
    #expect(json["energy"]?.isNull == true && json["seconds"]?.double == 0)
    let text = try Tool.run("extract-lora", base, tuned, "--rank", "4", "-o", out, "--dry-run")
    #expect(text.output == "would write \(out): 4 files, factors of up to 14 modules\n")
  }

  @Test func targets() throws {
    let json = try extract(options: ["--target", "*.q_proj", "--target", "*.v_proj", "--target", "*.nothing"])
    #expect(json["modules"]?.array?.count == 2)
    let left = try #require(json["notCaptured"]?.array)
    #expect(left.count == 2 && left.allSatisfy { $0["reason"]?.string == "--target leaves it out" })
    let warnings = try #require(json["warnings"]?.array).compactMap(\.string)
    #expect(warnings.count == 2 && warnings[0] == "--target '*.nothing' matches no linear layer")
  }

  // MARK: - What else differs

  @Test func rest() throws {
    var model = TestModel.llama()
    for name in [Self.query, "model.norm.weight", "model.embed_tokens.weight", "lm_head.weight"] {
      let index = try #require(model.tensors.firstIndex { $0.name == name })
      Self.negateSome(&model.tensors[index])
    }
    let other = try model.write(to: directory, "other")
    let json = try extract(other)
    let left = try #require(json["notCaptured"]?.array)
    #expect(left.count == 3 && json["modules"]?.array?.count == 1 && json["saved"]?.array?.isEmpty == true)
    for tensor in left {
      #expect(tensor["reason"]?.string == "only --save-rest saves it")
      #expect(try #require(tensor["relativeChange"]?.double) > 0)
    }
    let warnings = try #require(json["warnings"]?.array).compactMap(\.string)
    #expect(warnings.count == 1 && warnings[0].hasPrefix("3 tensors differ that the adapter does not hold"))
    let whole = try extract(other, to: "whole", rank: 32, options: ["--save-rest"])
    #expect(whole["saved"]?.array?.count == 3 && whole["notCaptured"]?.array?.isEmpty == true)
    #expect(whole["warnings"]?.array?.isEmpty == true)
    let merged = try Tool.run("merge", base, directory.path("whole"), "-o", directory.path("again"), "--quiet")
    #expect(merged.status == 0, "\(merged.error)")
    // Full rank and whole tensors: the same model.
    let difference = try Tool.run("diff", other, directory.path("again"))
    #expect(difference.status == 0, "\(difference.output)")
  }

  @Test func lowerRankThanAskedFor() throws {
    let tuned = try altered(Self.query) { tensor in
      // One row: rank 1.
      for index in stride(from: 1, to: 64, by: 2) { tensor.data[index] ^= 0x80 }
    }
    let json = try extract(tuned, rank: 8)
    let module = try #require(json["modules"]?.array?.first)
    #expect(module["rank"]?.int == 1 && json["rank"]?.int == 8)
    #expect(module["singularValues"]?.array?.dropFirst().allSatisfy { $0.double == 0 } == true)
    #expect(try #require(module["energy"]?.double) > 1 - 1e-9)
    let inspected = try #require(parse(Tool.run("inspect", out, "--json").output)?["tensors"]?.array)
    #expect(inspected.compactMap { $0["shape"]?.array?.compactMap(\.int) } == [[8, 32], [32, 8]])
  }

  // MARK: - Refusals

  @Test func mistakes() throws {
    try refuse(2, "option '--rank' is missing", options: [])
    try refuse(2, "option '--rank': '0' is not a number from 1 to", options: ["--rank", "0"])
    try refuse(2, "option '--rank': 33 is more than 32", options: ["--rank", "33"])
    try refuse(2, "is not one of float32, bfloat16, float16", options: ["--rank", "4", "--dtype", "keep"])
    try refuse(66, "has no linear layer that --target matches", options: ["--rank", "4", "--target", "nothing"])
    try refuse(66, "nowhere: ", tuned: directory.path("nowhere"))
    try refuse(66, "nowhere: ", base: directory.path("nowhere"))
    let missing = try Tool.run("extract-lora", base, "--rank", "4", "-o", out)
    #expect(missing.status == 2 && missing.error.contains("TUNED is missing"))
    let nowhere = try Tool.run("extract-lora", base, tuned, "--rank", "4")
    #expect(nowhere.status == 2 && nowhere.error.contains("option '-o' is missing"))
  }

  @Test func nothingToExtract() throws {
    try refuse(65, "has the same linear weights as", tuned: base)
    let norm = try altered("model.norm.weight", Self.negateSome)
    try refuse(65, "has the same linear weights as", tuned: norm)
  }

  @Test func modelsThatDoNotFit() throws {
    var model = TestModel.llama()
    model.tensors.removeAll { $0.name == Self.query }
    let less = try model.write(to: directory, "less")
    try refuse(65, "is missing: LlamaForCausalLM has it in every layer", tensor: Self.query, tuned: less)
    try refuse(65, "is missing: LlamaForCausalLM has it in every layer", tensor: Self.query, base: less)
    let shape = try altered(Self.query) { $0.shape = [16, 64] }
    try refuse(65, "has shape [16, 64], but by config.json", tensor: Self.query, tuned: shape)
    let wide = try TestModel.llama(type: "F32").write(to: directory, "wide")
    try refuse(65, "bring both to one dtype first", tuned: wide)
  }

  /// Of a class that nothing is known of, each may be whole.
  @Test func modelsThatDoNotFitEachOther() throws {
    func foreign(_ name: String, _ change: (inout TestModel) throws -> Void = { _ in }) throws -> String {
      var model = TestModel.llama()
      model.config = model.config?.replacingOccurrences(of: "LlamaForCausalLM", with: "OtherForCausalLM")
      try change(&model)
      return try model.write(to: directory, name)
    }
    let base = try foreign("foreign")
    let less = try foreign("less") { $0.tensors.removeAll { $0.name == Self.query } }
    try refuse(65, "both models must have the same tensors", tensor: Self.query, base: base, tuned: less)
    try refuse(65, "both models must have the same tensors", tensor: Self.query, base: less, tuned: base)
    let shape = try foreign("shape") { model in
      model.tensors[try #require(model.index(of: Self.query))].shape = [16, 64]
    }
    try refuse(65, "has shape [16, 64], [32, 32] in", tensor: Self.query, base: base, tuned: shape)
    let embedding = try foreign("embedding") { model in
      let index = try #require(model.index(of: "model.embed_tokens.weight"))
      var tensor = model.tensors[index]
      defer { model.tensors[index] = tensor }
      tensor.shape[0] += 1
      tensor.data += [UInt8](repeating: 0, count: 64)
    }
    try refuse(
      65, "goes into an adapter with --save-rest", tensor: "model.embed_tokens.weight", base: base, tuned: embedding)
  }

  @Test(arguments: [[0x7F, 0x80], [0x7F, 0xC0]] as [[UInt8]])
  func valuesThatAreNotFinite(_ value: [UInt8]) throws {
    let tuned = try altered(Self.query) { $0.data.replaceSubrange(20..<22, with: value.reversed()) }
    try refuse(65, "element 10 is ", tensor: Self.query, tuned: tuned)
    let norm = try altered("model.norm.weight", from: negated()) {
      $0.data.replaceSubrange(20..<22, with: value.reversed())
    }
    try refuse(65, "not finite", tensor: "model.norm.weight", tuned: norm, options: ["--rank", "4", "--save-rest"])
  }

  private func negated() -> TestModel {
    var model = TestModel.llama()
    for index in model.tensors.indices where model.tensors[index].name == Self.query {
      Self.negateSome(&model.tensors[index])
    }
    return model
  }

  @Test func outputThatIsThere() throws {
    _ = try extract()
    let before = try Snapshot(directory.path)
    let words = ["extract-lora", base, tuned, "--rank", "4", "-o"]
    #expect(try Tool.run(words + [out]).status == 73)
    #expect(try Tool.run(words + [base, "--force"]).status == 73)
    #expect(try Tool.run(words + [tuned, "--force"]).status == 73)
    #expect(try Tool.run(words + [tuned + "/inside"]).status == 73)
    #expect(try Snapshot(directory.path) == before)
    #expect(try Tool.run(words + [out, "--force"]).status == 0)
    #expect(try Snapshot(directory.path) == before)
  }

  // MARK: - 4-bit sides

  @Test func fourBitBase() throws {
    let nf4 = directory.path("nf4")
    try #require(try Tool.run("quantize", base, "-o", nf4, "--quiet").status == 0)
    let merged = directory.path("merged")
    let adapter = directory.path("adapter")
    try #require(try Tool.run("merge", nf4, adapter, "-o", merged, "--quiet").status == 0)
    let run = try Tool.run("extract-lora", nf4, merged, "--rank", "4", "-o", out, "--json")
    #expect(run.status == 0, "\(run.error)")
    let json = try #require(parse(run.output))
    // Weights that the adapter left alone are what the codes stand for.
    #expect(json["modules"]?.array?.count == 4)
    #expect(try #require(json["energy"]?.double) > 0.999)
  }
}

extension TemporaryDirectory {
  fileprivate func names(in folder: String) throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: path(folder)).sorted()
  }
}
