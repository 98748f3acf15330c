import Foundation
import TestSupport
import Testing

/// 400 MiB are enough to merge into any model, and no number in a file is taken for its size.
@Suite(.enabled(if: Machine.hasProc, "\(Machine.needsProc)"), .serialized)
struct MergeMemoryTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  /// A layer of a 13B model and a head of 0.7 GB, of zeros that take no room; rank 64 on every weight.
  @Test func largeBase() throws {
    let weights: [(name: String, shape: [Int])] = [
      ("model.layers.0.self_attn.q_proj", [5120, 5120]), ("model.layers.0.self_attn.o_proj", [5120, 5120]),
      ("model.layers.0.mlp.up_proj", [13_824, 5120]), ("model.layers.0.mlp.down_proj", [5120, 13_824]),
      ("lm_head", [64_000, 5120]),
    ]
    var base: [String] = []
    var adapter: [String] = []
    var (end, adapterEnd) = (0, 0)
    for (name, shape) in weights {
      let size = 2 * shape[0] * shape[1]
      base.append(SafetensorsBuilder.member("\(name).weight", "BF16", "\(shape)", "[\(end),\(end + size)]"))
      end += size
      for (part, shape) in [("A", [64, shape[1]]), ("B", [shape[0], 64])] {
        let size = 4 * shape[0] * shape[1]
        adapter.append(
          SafetensorsBuilder.member(
            "\(AdapterBuilder.prefix)\(name).lora_\(part).weight", "F32", "\(shape)",
            "[\(adapterEnd),\(adapterEnd + size)]"))
        adapterEnd += size
      }
    }
    let model = try directory.makeDirectory("base")
    try SparseCheckpoint.write("{\(base.joined(separator: ","))}", dataSize: end, to: model + "/model.safetensors")
    try directory.write("base/config.json", Array("{\"architectures\": [\"NovelForCausalLM\"]}".utf8))
    let path = try AdapterBuilder([], rank: 64).write(to: directory)
    try SparseCheckpoint.write(
      "{\(adapter.joined(separator: ","))}", dataSize: adapterEnd, to: path + "/adapter_model.safetensors")
    let out = directory.path("out")
    let run = try Tool.run(["merge", model, path, "-o", out, "--quiet", "--jobs", "8"], limit: 300)
    #expect(run.status == 0, "\(run.error)")
    #expect(run.residentBytes > 1 << 20 && run.residentBytes <= 400 << 20, "\(run.residentBytes >> 20) MiB")
    print("memory: merge \(run.residentBytes >> 20) MiB in \((run.seconds * 100).rounded() / 100) s")
  }

  /// Numbers of a tiny file that would be gigabytes.
  @Test func numbersInTinyFiles() throws {
    let base = try TestModel.llama().write(to: directory, "base")
    var builders: [AdapterBuilder] = []
    for (key, json) in [
      ("r", "2147483647"), ("trainable_token_indices", "[4611686018427387904]"), ("layer_replication", "[[0, 99999]]"),
      ("use_bdlora", "{\"nblocks\": 1000000, \"target_modules_bd_a\": [\"q_proj\"]}"),
      ("rank_pattern", "{\"(((a{999}){999}){999})\": 4}"),
    ] {
      var builder = AdapterBuilder.llama()
      builder.set(key, json)
      builder.add("model.embed_tokens.token_adapter.trainable_tokens_delta", [1, 32])
      builders.append(builder)
    }
    for (shape, size) in [("[2147483647,32]", 274_877_906_816), ("[4,4611686018427387904]", 16)] {
      var builder = AdapterBuilder.llama()
      let name = "\(AdapterBuilder.prefix)model.layers.0.self_attn.q_proj.lora_A.weight"
      builder.weights = SafetensorsBuilder.file(
        "{\(SafetensorsBuilder.member(name, "F32", shape, "[0,\(size)]"))}", [1])
      builders.append(builder)
    }
    for (number, builder) in builders.enumerated() {
      let path = try builder.write(to: directory, "adapter\(number)")
      let run = try Tool.run("merge", base, path, "-o", directory.path("out"), "--json")
      #expect([65, 69].contains(run.status) && run.errorLines.count == 1, "\(number): \(run.error)")
      #expect(run.residentBytes <= 64 << 20, "\(number): \(run.residentBytes >> 20) MiB")
      #expect((1..<1 << 20).contains(run.bytesRead), "\(number): \(run.bytesRead) bytes read")
    }
    #expect(try directory.names.filter { $0.contains("out") }.isEmpty)
  }

  /// Factors that are nothing but holes: the file is as long as they say, and takes no room.
  @Test func factorsOfHoles() throws {
    let base = try TestModel.llama().write(to: directory, "base")
    let path = directory.path("holes")
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
    let module = "\(AdapterBuilder.prefix)model.layers.0.self_attn.q_proj"
    let (rank, size) = (1 << 26, 1 << 33)
    try SparseCheckpoint.write(
      "{" + SafetensorsBuilder.member("\(module).lora_A.weight", "F32", "[\(rank),32]", "[0,\(size)]") + ","
        + SafetensorsBuilder.member("\(module).lora_B.weight", "F32", "[32,\(rank)]", "[\(size),\(2 * size)]") + "}",
      dataSize: 2 * size, to: path + "/adapter_model.safetensors")
    try Data("{\"peft_type\": \"LORA\", \"r\": \(rank), \"lora_alpha\": 8}".utf8).write(
      to: URL(fileURLWithPath: path + "/adapter_config.json"))
    let run = try Tool.run("merge", base, path, "-o", directory.path("out"), "--json")
    Refusal(status: 65, message: "values that A and B may have together").check(run, "merge")
    #expect(run.residentBytes <= 64 << 20, "\(run.residentBytes >> 20) MiB")
    #expect((1..<1 << 20).contains(run.bytesRead), "\(run.bytesRead) bytes read")
  }

  /// Ranges of one layer, in a few bytes each.
  @Test func manyReplicatedLayers() throws {
    let base = try TestModel.llama(layers: 1).write(to: directory, "base")
    for (count, message) in [(9_999, "belong to nothing in the base"), (10_001, "1 to 10000 layers in all")] {
      var builder = AdapterBuilder.llama(layers: 1)
      builder.set("layer_replication", "[" + Array(repeating: "[0, 1]", count: count).joined(separator: ",") + "]")
      builder.add("model.layers.9999.self_attn.q_proj.lora_A.weight", [4, 32])
      builder.add("model.layers.9999.self_attn.q_proj.lora_B.weight", [32, 4])
      let path = try builder.write(to: directory, "adapter\(count)")
      let run = try Tool.run("merge", base, path, "-o", directory.path("out"), "--json", "--quiet")
      Refusal(status: 65, message: message).check(run, "merge")
      if MemoryTests.isRelease {
        #expect(run.residentBytes <= 128 << 20, "\(run.residentBytes >> 20) MiB")
      }
    }
  }
}
