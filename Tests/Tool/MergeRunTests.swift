import Foundation
import JSON
import TestSupport
import Testing

#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// `merge` as a run: where its output may lie, what does not matter for it, and how it is stopped.
@Suite struct MergeRunTests: MergeTesting {
  let directory: TemporaryDirectory
  let base: String
  let adapter: String
  let out: String

  init() throws {
    directory = try TemporaryDirectory()
    base = try TestModel.llama().write(to: directory, "base")
    adapter = try AdapterBuilder.llama().write(to: directory)
    out = directory.path("out")
  }

  // MARK: - Place of the output

  @Test(arguments: [[], ["--force"]])
  func outputInTheAdapter(_ options: [String]) throws {
    let other = try AdapterBuilder.llama(seed: 7).write(to: directory, "other")
    try FileManager.default.createSymbolicLink(atPath: directory.path("here"), withDestinationPath: directory.path)
    let places = [
      ("adapter", "is the input itself"), ("other/", "is the input itself"), ("here/other", "is the input itself"),
      ("base", "is the input itself"), ("adapter/out", "lies inside the input directory"),
      ("other/out", "lies inside the input directory"), ("base/out", "lies inside the input directory"),
    ]
    let before = try Snapshot(directory.path)
    for (place, message) in places {
      let run = try Tool.run(
        ["merge", base, adapter, other, "-o", directory.path(place), "--json", "--quiet"] + options)
      Refusal(status: 73, message: message).check(run, "merge")
      #expect(try Snapshot(directory.path) == before, "\(place)")
    }
    try merge(nil, adapter, other, options: options)
  }

  // MARK: - What does not matter

  /// Several adapters of every kind, with as many workers as one likes.
  @Test func jobs() throws {
    let model = try TestModel.llama(layers: 3, bias: true).write(to: directory, "large")
    var dora = AdapterBuilder.llama(layers: 3, modules: ["self_attn.q_proj", "mlp.up_proj"], rank: 8)
    dora.set("use_dora", "true")
    for layer in 0..<3 {
      dora.add("model.layers.\(layer).self_attn.q_proj.lora_magnitude_vector", [32])
      dora.add("model.layers.\(layer).mlp.up_proj.lora_magnitude_vector", [64])
    }
    dora.add("model.embed_tokens.lora_embedding_A", [8, 48])
    dora.add("model.embed_tokens.lora_embedding_B", [32, 8])
    dora.add("model.embed_tokens.lora_magnitude_vector", [32])
    var rows = AdapterBuilder.llama(layers: 3, modules: ["self_attn.q_proj", "self_attn.o_proj"], rank: 2, seed: 5)
    rows.set("trainable_token_indices", "[47, 0, 3]")
    rows.add("model.embed_tokens.token_adapter.trainable_tokens_delta", [3, 32])
    rows.add("lm_head.weight", [48, 32])
    rows.set("lora_bias", "true")
    rows.add("model.layers.0.self_attn.q_proj.lora_B.bias", [32])
    let adapters = try [dora.write(to: directory, "dora"), rows.write(to: directory, "rows"), adapter]
    for options in [
      ["--weight", "0.5", "--weight", "1", "--weight", "-1"], ["--max-shard-size", "20kB", "--dtype", "float32"],
      ["--scheme", "nf4"], ["--base-as-trained", "nf4", "--rounding", "peft-safe"],
    ] {
      var first: (files: Snapshot, changes: JSONValue?)?
      for jobs in ["1", "2", "5"] {
        let result = try merge(
          model, adapters[0], adapters[1], adapters[2], to: "out-\(jobs)",
          options: options + ["--jobs", jobs, "--force"])
        let files = try Snapshot(directory.path("out-\(jobs)"))
        #expect(files == first?.files ?? files, "\(options)")
        #expect(result.json?["changes"] == first?.changes ?? result.json?["changes"], "\(options)")
        first = first ?? (files, result.json?["changes"])
      }
    }
    for kind in ["ties", "dare_ties", "dare_linear", "magnitude_prune"] {
      let other = try AdapterBuilder.llama(seed: 9).write(to: directory, "other")
      let outputs = try ["1", "5"].map { jobs in
        try merge(nil, adapter, other, to: "c-\(jobs)", options: ["--combine", kind, "--jobs", jobs, "--force"])
        return try Snapshot(directory.path("c-\(jobs)"))
      }
      #expect(outputs[0] == outputs[1], "\(kind)")
    }
  }

  @Test func dryRun() throws {
    var builder = AdapterBuilder.llama()
    builder.add("model.embed_tokens.weight", [50, 32])
    builder.add("lm_head.weight", [50, 32])
    builder.files = [("tokenizer.json", Array("{}".utf8))]
    let path = try builder.write(to: directory, "resized")
    let before = try Snapshot(directory.path)
    let planned = try merge(nil, path, options: ["--dry-run"])
    #expect(try Snapshot(directory.path) == before)
    let done = try merge(nil, path)
    let keys = try #require(done.json?.object?.keys.map { $0 })
    #expect(planned.json?.object?.keys.map { $0 } == keys && keys.contains("changes"))
    for key in keys where key != "seconds" && key != "changes" {
      #expect(planned.json?[key] == done.json?[key], "\(key)")
    }
    let changes = try #require(done.json?["changes"]?.array)
    let plannedChanges = try #require(planned.json?["changes"]?.array)
    #expect(changes.count == 6 && plannedChanges.count == 6)
    for (one, other) in zip(plannedChanges, changes) {
      for key in ["tensor", "adapter", "scale"] { #expect(one[key] == other[key]) }
      #expect(one["relativeChange"]?.isNull == true)
    }
    #expect(planned.run.error == done.run.error && planned.run.warnings.contains { $0.contains("'tokenizer.json'") })
    let config = try #require(parse(String(decoding: directory.read("out/config.json"), as: UTF8.self)))
    #expect(config["vocab_size"]?.int == 50)
    // What the run refuses, the plan refuses, as far as no value is needed.
    builder.reshape("lm_head.weight", [49, 32])
    let bad = try builder.write(to: directory, "bad")
    try refuse(65, "has 50 tokens", bad, options: ["--dry-run"])
  }

  // MARK: - Interrupted

  @Test(arguments: [SIGHUP, SIGINT, SIGTERM])
  func signal(_ number: Int32) throws {
    try InterruptedRunTests.writeZeros(directory, "large/model.safetensors", rows: 25_600, columns: 2048)
    let module = "model.layers.0.mlp.up_proj"
    let wide = try AdapterBuilder(AdapterBuilder.linear(module, [25_600, 2048], type: "BF16")).write(
      to: directory, "wide")
    let before = try Snapshot(directory.path)
    let process = try ToolProcess(
      [Tool.path, "merge", directory.path("large"), wide, "-o", out, "--jobs", "1", "--json", "--quiet"],
      output: .captured, error: .captured)
    let shard = directory.path(".out.nibble-partial/model.safetensors")
    let isPaused = process.pause {
      var status = stat()
      return stat(shard, &status) == 0 && status.st_size > 1 << 20
    }
    try #require(isPaused)
    process.signal(number)
    process.signal(SIGCONT)
    let run = try process.wait()
    Refusal(status: 128 + number, message: "nothing was left behind").check(run, "merge")
    #expect(try Snapshot(directory.path) == before)
  }
}
