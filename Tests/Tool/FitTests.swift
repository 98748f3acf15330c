import Foundation
import JSON
import TestSupport
import Testing

/// `fit`: options, the shape of its answer, what it says of CodeLlama-13B, what it refuses.
@Suite struct FitTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  /// CodeLlama-13B's configuration with keys replaced; nil takes one away.
  func config(
    _ changes: [String: String?] = [:], named name: String = "config.json"
  ) throws -> String {
    var members = [
      "architectures": "[\"LlamaForCausalLM\"]", "model_type": "\"llama\"", "hidden_size": "5120",
      "num_hidden_layers": "40", "num_attention_heads": "40", "num_key_value_heads": "40",
      "intermediate_size": "13824", "vocab_size": "32016", "tie_word_embeddings": "false",
      "torch_dtype": "\"bfloat16\"",
    ]
    for (key, value) in changes { members[key] = value }
    let text = members.map { "\"\($0)\": \($1)" }.joined(separator: ", ")
    return try directory.write(name, Array("{\(text)}".utf8))
  }

  func fit(
    _ path: String, _ options: [String] = [], sourceLocation: SourceLocation = #_sourceLocation
  ) throws -> JSONValue {
    let run = try Tool.run(["fit", path, "--json"] + options, limit: 10, sourceLocation: sourceLocation)
    #expect(run.status == 0, "\(run.error)", sourceLocation: sourceLocation)
    return try #require(parse(run.output, sourceLocation), sourceLocation: sourceLocation)
  }

  func row(_ report: JSONValue, _ name: String) throws -> JSONValue {
    try #require(report["strategies"]?.array?.first { $0["name"]?.string == name })
  }

  func bytes(_ report: JSONValue, _ name: String, _ key: String) throws -> Int {
    try #require(try row(report, name)["perGPU"]?[key]?.int)
  }

  func refuse(
    _ status: Int32, _ message: String, _ path: String, _ options: [String] = [],
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let run = try Tool.run(["fit", path, "--json"] + options, limit: 10, sourceLocation: sourceLocation)
    Refusal(status: status, message: message).check(run, "fit", sourceLocation)
    let plain = try Tool.run(["fit", path] + options, sourceLocation: sourceLocation)
    #expect(plain.status == status && plain.error == run.error && plain.output == "", sourceLocation: sourceLocation)
  }

  // MARK: - CodeLlama-13B

  private static let strategies = ["full", "lora-bf16", "qlora", "qlora-paged", "qlora-fsdp"]
  static let two = ["--gpus", "2x24GiB"]

  @Test func codeLlama() throws {
    let path = try config()
    let report = try fit(path)
    #expect(
      report.object?.keys.map { $0 } == ["parameters", "strategies", "cardsNeeded", "hostMemory", "disk"])
    #expect(report["parameters"]?.int == 13_016_028_160)
    let rows = try #require(report["strategies"]?.array)
    // Nothing can be divided on one card.
    #expect(rows.compactMap { $0["name"]?.string } == Self.strategies.dropLast())
    let several = try #require(fit(path, Self.two)["strategies"]?.array)
    #expect(several.compactMap { $0["name"]?.string } == Self.strategies)
    for row in rows + several {
      #expect(
        row.object?.keys.map { $0 } == [
          "name", "perGPU", "budget", "fits", "longestSequence", "largestBatch", "cardsNeeded", "margin",
        ])
      #expect(try row["margin"]?.int == 24 << 30 - #require(row["perGPU"]?["total"]?.int))
      let perGPU = try #require(row["perGPU"]?.object)
      #expect(
        perGPU.keys.map { $0 } == [
          "weights", "adapter", "gradients", "optimizer", "activations", "overhead", "total",
        ])
      let parts = perGPU.keys.filter { $0 != "total" }.compactMap { perGPU[$0]?.int }
      #expect(parts.count == 6 && parts.reduce(0, +) == perGPU["total"]?.int)
      #expect(row["budget"]?.int == 24 << 30)
      #expect(row["fits"]?.bool == (try #require(perGPU["total"]?.int) <= 24 << 30))
    }
    #expect(try bytes(report, "lora-bf16", "weights") == 26_032_056_320)
    #expect(try row(report, "lora-bf16")["fits"]?.bool == false)
    #expect(try row(report, "qlora")["fits"]?.bool == true)
    // 280 linear layers: their codes and statistics; the embeddings and norms in 16 bits.
    #expect(try bytes(report, "qlora", "weights") == 7_202_051_680)
    #expect(try bytes(report, "qlora", "adapter") == 4 * 64 * (40 * (8 * 5120 + 3 * 5120 + 3 * 13824)))
  }

  @Test func words() throws {
    let run = try Tool.run("fit", try config())
    #expect(run.status == 0 && run.error == "")
    let line = try #require(run.output.split(separator: "\n").first { $0.contains("lora-bf16 do not fit") })
    #expect(
      line.hasPrefix("full and lora-bf16 do not fit a 24 GiB card: 26.0 GB of weights alone; qlora does, with "))
    #expect(run.output.contains("\nqlora fits a 24 GiB card, with "))
    #expect(run.output.contains(" to spare: sequences up to "))
    for line in run.output.split(separator: "\n") { #expect(line.count <= 120, "\(line)") }
    // What is the same for several strategies is said once.
    for options in [[], Self.two, ["--gpus", "8GB"], ["--gpus", "3x8GB"]] {
      let lines = try Tool.run(["fit", try config()] + options).output.split(separator: "\n")
      let said = lines.flatMap { $0.split(separator: ";").dropFirst() }.filter { $0.contains(" does, with ") }
      #expect(Set(said).count == said.count, "\(said)")
    }
    for options in [["--gpus", "48GiB", "--seq-len", "4097"], ["--gpus", "48GiB"], ["--gpus", "8GB"]] {
      let path = try config(["max_position_embeddings": "4096"])
      let lines = try Tool.run(["fit", path] + options).output.split(separator: "\n")
      // Without the strategies no two lines are the same.
      let rest = lines.map { line in
        line.split(separator: " ").filter { word in !Self.strategies.contains { word.hasPrefix($0) } }.joined(
          separator: " ")
      }
      #expect(Set(rest).count == rest.count, "\(rest)")
    }
    let short = try config(["max_position_embeddings": "4096"])
    let beyond = try Tool.run("fit", short, "--seq-len", "4097", "--gpus", "8GB")
    #expect(beyond.output.contains("\nfull, lora-bf16, qlora and qlora-paged do not fit an 8.0 GB card\n"))
    let small = try Tool.run("fit", try config(), "--gpus", "8GB")
    #expect(small.output.contains("qlora does not fit an 8.0 GB card: ") && small.output.contains(" too much; "))
  }

  /// The longest sequence fits, one token more does not; the same for batches.
  @Test(arguments: strategies, [[], ["--no-gradient-checkpointing"]])
  func longest(_ name: String, _ options: [String]) throws {
    let path = try config(["num_hidden_layers": "4"])
    let options = options + (name == "qlora-fsdp" ? Self.two : [])
    let found = try row(fit(path, options), name)
    for (key, option) in [("longestSequence", "--seq-len"), ("largestBatch", "--batch")] {
      let number = try #require(found[key]?.int)
      try #require(number > 0)
      #expect(try row(fit(path, options + [option, "\(number)"]), name)["fits"]?.bool == true)
      #expect(try row(fit(path, options + [option, "\(number + 1)"]), name)["fits"]?.bool == false)
    }
  }

  // MARK: - Options

  @Test func optimizersAndStages() throws {
    let path = try config()
    let plain = try fit(path)
    let parameters = 13_016_028_160
    // 40 × 9 weights in layers, embeddings and the last norm: a step of 4 bytes each.
    #expect(try bytes(plain, "full", "optimizer") == 4 * parameters + 4 * 363)
    #expect(try bytes(fit(path, ["--optimizer", "sgd"]), "qlora", "optimizer") == 0)
    let paged = try fit(path, ["--optimizer=paged-adamw"])
    #expect(try bytes(paged, "qlora", "optimizer") == bytes(plain, "qlora-paged", "optimizer"))
    let eight = try bytes(fit(path, ["--optimizer", "adamw-8bit"]), "qlora", "optimizer")
    #expect(try eight * 3 < bytes(plain, "qlora", "optimizer"))
    let two = try fit(path, ["--gpus", "4x80GiB", "--zero-stage", "2"])
    #expect(try bytes(two, "full", "gradients") == parameters / 2)
    #expect(try bytes(two, "full", "optimizer") == (12 * parameters + 4 * 363 + 3) / 4)
    #expect(try bytes(two, "full", "weights") == 2 * parameters)
    let three = try fit(path, ["--gpus", "4x80GiB", "--zero-stage", "3"])
    #expect(try bytes(three, "full", "weights") == parameters / 2)
    #expect(try bytes(three, "qlora", "weights") == bytes(plain, "qlora", "weights"))
    #expect(try bytes(two, "qlora-fsdp", "weights") < bytes(plain, "qlora", "weights") / 3)
    #expect(try row(two, "full")["budget"]?.int == 80 << 30)
  }

  @Test func targets() throws {
    let path = try config()
    let two = try fit(path, ["--target-modules", "q_proj,v_proj", "--lora-rank", "8"])
    #expect(try bytes(two, "qlora", "adapter") == 40 * 2 * 8 * 2 * 5120 * 4)
    #expect(try fit(path, ["--target-modules", "all-linear"]).text(.line) == fit(path).text(.line))
    try refuse(66, "no linear layer is named 'lm_head'", path, ["--target-modules", "q_proj,lm_head"])
    try refuse(2, "'q_proj,' has an empty name", path, ["--target-modules", "q_proj,"])
  }

  @Test(arguments: [
    (["--gpus", "0x24GiB"], "'0x24GiB' is not a number of GPUs"), (["--gpus", "-1x24GiB"], "'-1x24GiB' is not"),
    (["--gpus", "3x"], "'3x' is not"), (["--gpus", "x24GiB"], "'x24GiB' is not"), (["--gpus", "3x24GX"], "is not"),
    (["--gpus", "3x-24GiB"], "is not"), (["--gpus", "99999999999999999999x1GB"], "is not"),
    (["--gpus", "3x99999999999TiB"], "is not"), (["--batch", "0"], "is not a number from 1"),
    (["--batch", "-3"], "is not a number from 1"), (["--seq-len", "many"], "is not a number from 1"),
    (["--seq-len", "99999999999999999999"], "is not a number from 1"),
    (["--lora-rank", "0"], "is not a number from 1"),
    (["--zero-stage", "1"], "is not one of 0, 2, 3"), (["--zero-stage", "4"], "is not a number from 0 to 3"),
    (["--optimizer", "adam"], "did you mean 'adamw'?"), (["--gpu", "3x24GiB"], "did you mean '--gpus'?"),
    (["another"], "unexpected argument 'another'"),
  ])
  func mistakes(_ options: [String], _ message: String) throws {
    try refuse(2, message, try config(), options)
  }

  @Test func help() throws {
    let run = try Tool.run("fit", "--help")
    #expect(run.status == 0 && run.output.hasPrefix("nibble fit MODEL "))
    for line in run.output.split(separator: "\n") { #expect(line.count <= 80, "\(line)") }
    #expect(try Tool.run("--help").output.contains("\n  fit           "))
    let nothing = try Tool.run("fit")
    #expect(nothing.status == 2 && nothing.error.contains("MODEL is missing"))
  }

  // MARK: - Configurations

  @Test func precision() throws {
    let path = try config()
    let report = try fit(path)
    // The name of a file says nothing.
    let other = try config(["torch_dtype": nil, "dtype": "\"float16\""], named: "weights.bin")
    #expect(try fit(other).text(.line) == report.text(.line))
    let wide = try config(["torch_dtype": "\"float32\""], named: "wide")
    let run = try Tool.run("fit", wide, "--json")
    #expect(run.warnings.count == 1 && run.error.contains("training in bfloat16"))
    #expect(parse(run.output)?.text(.line) == report.text(.line))
    #expect(try Tool.run("fit", wide, "--json", "--quiet").error == "")
  }

  @Test(
    arguments: [
      ("num_hidden_layers", "1000000000000000000", 65), ("num_hidden_layers", "5000", 65),
      ("num_hidden_layers", "0", 65), ("num_hidden_layers", "-1", 65), ("num_hidden_layers", "1.5", 65),
      ("num_hidden_layers", "1e400", 65), ("num_hidden_layers", "\"40\"", 65), ("num_hidden_layers", "null", 65),
      ("hidden_size", "1000000000000000000", 65), ("hidden_size", "9223372036854775807", 65),
      ("hidden_size", "99999999999999999999", 65), ("hidden_size", "5121", 65), ("hidden_size", nil, 65),
      ("vocab_size", "9223372036854775807", 65), ("vocab_size", "400000000000000", 65), ("intermediate_size", "[]", 65),
      ("num_attention_heads", "0", 65), ("num_key_value_heads", "0", 65), ("num_key_value_heads", "3", 65),
      ("head_dim", "4611686018427387904", 65), ("tie_word_embeddings", "1", 65), ("attention_bias", "\"no\"", 65),
      ("torch_dtype", "\"float8\"", 69), ("torch_dtype", "7", 69), ("model_type", "\"gpt2\"", 69),
      ("model_type", "\"\\u001b[31mred\"", 69), ("model_type", nil, 69), ("model_type", "\"mixtral\"", 69),
      ("architectures", "[\"LlamaForSequenceClassification\"]", 69),
    ] as [(String, String?, Int32)])
  func badSizes(_ key: String, _ value: String?, _ status: Int32) throws {
    let isUnknown = key == "model_type" || key == "architectures"
    try refuse(status, isUnknown ? "inspect CHECKPOINT" : "", try config([key: value]))
    if isUnknown { try refuse(status, "fit does not know ", try config([key: value])) }
  }

  @Test func overflowOfTheRest() throws {
    let wide = try config(["vocab_size": "100000000000000"])
    try refuse(65, "2^63", wide, ["--batch", "16777216", "--seq-len", "16777216"])
    // The largest sizes allowed are only slow to list.
    let deep = try config(["num_hidden_layers": "4096"])
    #expect(try fit(deep)["parameters"]?.int ?? 0 > 1_000_000_000_000)
  }

  @Test func badFiles() throws {
    try refuse(66, "nowhere", directory.path("nowhere"))
    try refuse(65, "", try directory.write("empty", []))
    try refuse(65, "", try directory.write("text", Array("hello, this is no model".utf8)))
    try refuse(65, "", try directory.write("cut", Array("{\"model_type\": \"llama\"".utf8)))
    try refuse(65, "", try directory.write("list", Array("[1, 2]".utf8)))
    try refuse(65, "", try directory.write("twice", Array("{\"a\": 1, \"a\": 2}".utf8)))
    try refuse(66, "has neither safetensors nor a config.json", try directory.makeDirectory("bare"))
    let folder = try directory.makeDirectory("inner")
    _ = try directory.write("inner/config.json", directory.read(URL(filePath: try config()).lastPathComponent))
    #expect(try fit(folder).text(.line) == fit(directory.path("config.json")).text(.line))
  }

  // MARK: - Checkpoints

  private func model() -> TestModel {
    var model = TestModel.llama()
    model.config = model.config?.replacing(
      "\"vocab_size\"",
      with: "\"intermediate_size\": 64, \"num_attention_heads\": 2, \"num_key_value_heads\": 1, \"vocab_size\"")
    return model
  }

  @Test func checkpoint() throws {
    let path = try model().write(to: directory)
    let report = try fit(path)
    #expect(report["parameters"]?.int == 21_664)
    #expect(try fit(path + "/model.safetensors").text(.line) == report.text(.line))
    #expect(try fit(path + "/config.json").text(.line) == report.text(.line))
    let nf4 = directory.path("nf4")
    try #require(try Tool.run("quantize", path, "-o", nf4, "--quiet").status == 0)
    #expect(try fit(nf4).text(.line) == report.text(.line))
    let blocks = directory.path("blocks")
    let words = ["quantize", path, "-o", blocks, "--block-size", "128", "--no-double-quant", "--quiet"]
    try #require(try Tool.run(words).status == 0)
    // As it is stored: 32-bit maxima, half as many, and no second level.
    let values = 2 * 9_216
    let statistics = values / 128 * 4 + 14 * 64
    #expect(try bytes(fit(blocks), "qlora", "weights") == 2 * (21_664 - values) + values / 2 + statistics)
  }

  @Test func checkpointsThatDoNotFit() throws {
    var less = model()
    less.tensors.removeAll { $0.name == "model.norm.weight" }
    try refuse(65, "is missing, although the config.json asks for it", try less.write(to: directory, "less"))
    var other = model()
    other.config = other.config?.replacing("\"intermediate_size\": 64", with: "\"intermediate_size\": 96")
    try refuse(65, "has shape [64, 32], by the config.json it is [96, 32]", try other.write(to: directory, "other"))
    let unknown = try TestModel(layers: 1).write(to: directory, "unknown")
    try refuse(69, "fit does not know ", unknown)
    var alone = model()
    alone.config = nil
    let path = try alone.write(to: directory, "alone")
    try refuse(66, "has no config.json", path)
    try refuse(66, "config.json", path + "/model.safetensors")
    var more = model()
    more.tensors.append(TestModel.tensor("model.layers.0.self_attn.rotary_emb.inv_freq", "F32", [8], seed: 3))
    let run = try Tool.run("fit", try more.write(to: directory, "more"))
    #expect(run.status == 0 && run.warnings.count == 1 && run.error.contains("rotary_emb.inv_freq'"))
  }
}
