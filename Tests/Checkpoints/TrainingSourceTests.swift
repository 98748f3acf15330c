import Adapters
import Bytes
import Foundation
import JSON
import Tensors
import TestSupport
import Testing

@testable import Checkpoints

/// Directories that a training run leaves: how they are known, where their configuration is, and shards that say where
/// their parts belong.
@Suite struct TrainingSourceTests {
  private let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  private static let shards = [
    "shard-00001-model-00001-of-00001.safetensors", "shard-00002-model-00001-of-00001.safetensors",
  ]

  /// Three numbers, of which the file has some.
  private func shard(_ name: String, _ values: [UInt8], info: String?, folder: String = "") throws {
    var file = SafetensorsBuilder([.init("w", "U8", [values.count], values)])
    file.metadata = info.map { "{\"DCP_SHARDING_INFO\":\(JSONValue.string($0).text(.compact)),\"format\":\"pt\"}" }
    try directory.write(folder + name, file.bytes)
  }

  private static func info(_ offsets: String) -> String { "{\"w\": {\"saved_offsets\": \(offsets)}}" }

  @Test func shardsAlone() throws {
    try shard(Self.shards[0], [1, 2], info: Self.info("[0]"))
    try shard(Self.shards[1], [3], info: Self.info("[2]"))
    let files = try CheckpointFiles(path: directory.path)
    #expect(try files.checkpoint.bytes(of: 0) == [1, 2, 3])
    #expect(files.checkpoint.container == "torch.distributed.checkpoint")
    // Where the writer has joined them they are what it has joined.
    _ = try directory.makeDirectory("sharded")
    for name in Self.shards {
      try FileManager.default.moveItem(atPath: directory.path(name), toPath: directory.path("sharded/" + name))
    }
    #expect(try CheckpointFiles(path: directory.path).checkpoint.bytes(of: 0) == [1, 2, 3])
    try directory.write("model.safetensors", SafetensorsBuilder.small.bytes)
    #expect(try CheckpointFormat.detect(directory.path) == .safetensorsDirectory)
  }

  static let faults: [(info: String?, message: String)] = [
    (nil, "has no 'DCP_SHARDING_INFO' in its metadata"), ("[2", "JSON"), ("[]", "has no place of 1 number"),
    ("{}", "has no place of 1 number"), ("{\"w\": 2}", "has no place of 1 number"),
    (info("2"), "has no place of 1 number"),
    (info("[]"), "has no place of 1 number"), (info("[2, 0]"), "has no place of 1 number"),
    (info("[-1]"), "has no place of 1 number"), (info("[0.5]"), "has no place of 1 number"),
    (info("[\"2\"]"), "has no place of 1 number"), (info("[18446744073709551618]"), "has no place of 1 number"),
    (info("[3]"), "its shape [4] has 4"), (info("[1]"), "its shape [2] has 2"),
    (info("[9223372036854775807]"), "overflows"),
  ]

  @Test(arguments: faults) func placesOfShards(_ info: String?, _ message: String) throws {
    try shard(Self.shards[0], [1, 2], info: Self.info("[0]"))
    try shard(Self.shards[1], [3], info: info)
    let failure = try #require(throws: Failure.self) { _ = try CheckpointFiles(path: directory.path) }
    #expect(failure.code == .malformed && failure.text.contains(message), "\(failure.text)")
  }

  /// A file of the first rank, which is the only one.
  private func rank(_ folder: String) throws {
    _ = try directory.makeDirectory(folder)
    try directory.write(
      folder + "/model_world_size_1_rank_0.pt", RankedBuilder.file([.init([2], [.shard(0)], at: [0], [1, 2], [2])]))
  }

  private func config(_ folder: String) throws {
    _ = try directory.makeDirectory(folder)
    try directory.write(folder + "/config.json", Array("{\"from\": \"\(folder)\"}".utf8))
  }

  private func found(_ path: String, config: String? = nil) throws -> String? {
    try StoredModel(CheckpointFiles(path: directory.path(path), config: config.map(directory.path))).config?["from"]?
      .string
  }

  @Test func configurations() throws {
    try rank("run/global_step_20/actor")
    #expect(try CheckpointFormat.detect(directory.path("run/global_step_20")) == .rankedDirectory)
    #expect(try found("run/global_step_20") == nil && found("run/global_step_20/actor") == nil)
    // What is nearer goes first.
    for (folder, isForStep) in [
      ("run", true), ("run/global_step_20", true), ("run/global_step_20/actor/huggingface", false),
    ] {
      try config(folder)
      #expect(try found("run/global_step_20/actor") == folder)
      #expect(try found("run/global_step_20") == (isForStep ? folder : "run/global_step_20"))
    }
    try config("elsewhere")
    #expect(try found("run/global_step_20", config: "elsewhere") == "elsewhere")
    let model = try StoredModel(
      CheckpointFiles(path: directory.path("run/global_step_20"), config: directory.path("elsewhere")))
    #expect(model.identities.count == 2)
    let empty = try directory.makeDirectory("empty")
    let failure = try #require(throws: Failure.self) { _ = try found("run/global_step_20", config: "empty") }
    #expect(failure.code == .missing && failure.file == empty && failure.message.contains("has no config.json"))
  }

  @Test func configurationsOfOthers() throws {
    _ = try directory.makeDirectory("m")
    try directory.write("m/model.safetensors", SafetensorsBuilder.small.bytes)
    try directory.write("m.bin", TorchBuilder.zip(TorchBuilder.example, [("0", TorchBuilder.exampleData)]))
    try directory.write("m.gguf", GGUFBuilder.small.bytes)
    try config("elsewhere")
    #expect(try found("m") == nil && found("m.bin") == nil)
    for path in ["m", "m/model.safetensors", "m.bin"] { #expect(try found(path, config: "elsewhere") == "elsewhere") }
    _ = try directory.makeDirectory("a")
    try directory.write("a/adapter_config.json", Array("{}".utf8))
    try directory.write("a/adapter_model.safetensors", SafetensorsBuilder.small.bytes)
    for path in ["m.gguf", "a"] {
      let failure = try #require(throws: Failure.self) { _ = try found(path, config: "elsewhere") }
      #expect(failure.code == .usage && failure.message.contains("option '--config' is for"))
    }
  }

  @Test func adapterOfARun() throws {
    let module = "base_model.model.q."
    let names = ["base_layer.weight", "lora_A.default.weight", "lora_B.default.weight"].map { module + $0 }
    func write(_ names: [String], settings: String?) throws {
      let tensors = names.enumerated().map { ($1, ZeROBuilder.Tensor.float32([Float($0)])) }
      try directory.write("model_world_size_1_rank_0.pt", RankedBuilder.file([], plain: tensors))
      if let settings { try directory.write("adapter_config.json", Array(settings.utf8)) }
    }
    func refused(_ code: Failure.Code, _ message: String) throws {
      let failure = try #require(throws: Failure.self) { _ = try StoredModel(path: directory.path) }
      #expect(failure.code == code && failure.message.contains(message), "\(failure)")
    }
    try write(names, settings: nil)
    try refused(.missing, "is of a run that trained an adapter, and has no adapter_config.json")
    try write(names, settings: "{\"bias\": \"lora_only\"}")
    try refused(.unsupported, "has trained biases of the base ('lora_only')")
    try write(names + [module + "lora_A.other.weight"], settings: "{\"bias\": \"none\"}")
    try refused(.unsupported, "holds several adapters, 'default' and 'other'")
    try write(names + [module + "lora_A.default.lora_A.weight"], settings: "{}")
    _ = try StoredModel(path: directory.path)
    try write(names + [module + "modules_to_save.default.x", module + "x.modules_to_save.default"], settings: "{}")
    try refused(.malformed, "as another is")
    try write(names, settings: "{}")
    let model = try StoredModel(path: directory.path)
    #expect(
      model.isAdapter
        && model.checkpoint.tensors.map(\.name.string) == [module + "lora_A.weight", module + "lora_B.weight"])
    #expect(try model.checkpoint.bytes(of: 1) == [0, 0, 0, 0x40] && model.sideFiles == ["adapter_config.json"])
    #expect(
      model.checkpoint.index(of: TensorName(names[1])) == nil
        && model.checkpoint.index(of: "base_model.model.q.lora_B.weight") == 1)
    #expect(model.warnings.map(\.description) == ["left out, which is not of the adapter: '\(names[0])'"])
    let failure = try #require(throws: Failure.self) { _ = try Adapter.open(directory.path) }
    #expect(failure.code == .unsupported && failure.message.contains("nibble convert"))
  }

  @Test func sizeOfTheRun() throws {
    try rank("actor")
    for (text, isRefused) in [("{}", false), ("{\"world_size\": 1}", false), ("{\"world_size\": 2}", true)] {
      try directory.write("actor/fsdp_config.json", Array(text.utf8))
      if isRefused {
        let failure = try #require(throws: Failure.self) { _ = try CheckpointFiles(path: directory.path) }
        #expect(failure.code == .malformed && failure.message.contains("the run had 2 ranks, the files are of 1"))
      } else {
        _ = try CheckpointFiles(path: directory.path)
      }
    }
  }

  @Test func checkpointsOfARun() throws {
    func message() throws -> String {
      let failure = try #require(throws: Failure.self) { _ = try CheckpointFiles(path: directory.path) }
      #expect(failure.code == .missing)
      return failure.text
    }
    _ = try directory.makeDirectory("logs-3")
    #expect(try message().contains("holds no safetensors file"))
    for name in ["checkpoint-9", "checkpoint-40", "global_step_30", "checkpoint-best"] {
      _ = try directory.makeDirectory(name)
    }
    let expected =
      "holds no model, only 3 checkpoints of a training run: name one of them, such as the newest, "
      + "'\(directory.path)/checkpoint-40'"
    #expect(try message().contains(expected))
    // A configuration alone is no model either, unless that is what is asked for.
    try directory.write("config.json", Array("{}".utf8))
    #expect(try message().contains(expected))
    #expect(try CheckpointFormat.detect(directory.path) == .configurationDirectory)
    _ = try directory.makeDirectory("global_step500")
    #expect(try message().contains("4 checkpoints of a training run"))
    #expect(try message().contains("global_step500'"))
    // One that is there, and damaged, is what was meant.
    try directory.write("model-00001-of-00002.safetensors", SafetensorsBuilder.small.bytes)
    #expect(try message().contains("holds shard 1 of 2"))
  }
}
