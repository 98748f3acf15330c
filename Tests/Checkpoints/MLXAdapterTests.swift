import Bytes
import JSON
import Tensors
import TestSupport
import Testing

@testable import Checkpoints

/// Adapters of mlx-lm, put together by hand: factors are [in, r] and [r, out], those of PEFT the other way round.
@Suite struct MLXAdapterTests {
  private typealias Tensor = SafetensorsBuilder.Tensor

  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  private static func tensor(_ name: String, _ shape: [Int], from first: Int = 1) -> Tensor {
    let values = (0..<shape.reduce(1, *)).map { Float(first + $0) }
    return Tensor(
      name, "F32", shape, values.flatMap { value in (0..<4).map { UInt8(value.bitPattern >> (8 * $0) & 0xFF) } })
  }

  private static let layer = "model.layers.1.self_attn.q_proj"
  private static let sound = [tensor("\(layer).lora_a", [3, 2]), tensor("\(layer).lora_b", [2, 4], from: 11)]
  private static let settings = #""lora_parameters": {"rank": 2, "scale": 20.0, "dropout": 0.0}"#

  private func open(_ tensors: [Tensor], _ settings: String = settings) throws -> PlannedCheckpoint {
    try directory.write("adapters.safetensors", SafetensorsBuilder(tensors).bytes)
    try directory.write("adapter_config.json", Array("{\(settings)}".utf8))
    #expect(try CheckpointFormat.detect(directory.path) == .mlxAdapterDirectory)
    return try #require(CheckpointFiles(path: directory.path).planned)
  }

  private func floats(_ checkpoint: PlannedCheckpoint, _ name: TensorName) throws -> [Float] {
    let index = try #require(checkpoint.index(of: name))
    let bytes = try checkpoint.bytes(of: index)
    return stride(from: 0, to: bytes.count, by: 4).map { at in
      Float(bitPattern: (0..<4).reduce(0) { $0 | UInt32(bytes[at + $1]) << (8 * UInt32($1)) })
    }
  }

  @Test func factors() throws {
    let checkpoint = try open(Self.sound)
    let name = "base_model.model.\(Self.layer).lora_"
    #expect(checkpoint.tensors.map(\.name.string) == [name + "A.weight", name + "B.weight"])
    #expect(checkpoint.tensors.map(\.shape) == [[2, 3], [4, 2]])
    #expect(try floats(checkpoint, TensorName(name + "A.weight")) == [1, 3, 5, 2, 4, 6])
    #expect(try floats(checkpoint, TensorName(name + "B.weight")) == [11, 15, 12, 16, 13, 17, 14, 18])
    #expect(checkpoint.isAdapter && checkpoint.madeConfig == nil && checkpoint.warnings.isEmpty)
    #expect(checkpoint.fileNames == ["adapters.safetensors", "adapter_config.json"])
    let config = try #require(checkpoint.adapterConfig)
    #expect(config["base_model_name_or_path"]?.isNull == true)
    #expect(config["r"] == 2 && config["lora_alpha"] == 40 && config["use_dora"] == false)
    #expect(config["target_modules"] == ["self_attn.q_proj"] && config["layers_to_transform"] == [1])
  }

  @Test func rankOfTheTensors() throws {
    let config = try open(Self.sound, #""lora_parameters": {"scale": 0.25}, "model": "org/name""#).adapterConfig
    #expect(
      config?["r"] == 2 && config?["lora_alpha"]?.double == 0.5 && config?["base_model_name_or_path"] == "org/name")
  }

  @Test func lengths() throws {
    let tensors = Self.sound + [Self.tensor("\(Self.layer).m", [4])]
    let checkpoint = try open(tensors, #""fine_tune_type": "dora", "# + Self.settings)
    #expect(checkpoint.adapterConfig?["use_dora"] == true)
    let name = TensorName("base_model.model.\(Self.layer).lora_magnitude_vector")
    #expect(try floats(checkpoint, name) == [1, 2, 3, 4])
  }

  @Test func embeddingsAndWholePaths() throws {
    let others = [Self.tensor("model.embed_tokens.lora_a", [5, 2]), Self.tensor("model.embed_tokens.lora_b", [2, 3])]
    let checkpoint = try open(Self.sound + others)
    #expect(
      checkpoint.tensors.suffix(2).map(\.name) == [
        "base_model.model.model.embed_tokens.lora_embedding_A", "base_model.model.model.embed_tokens.lora_embedding_B",
      ])
    let config = try #require(checkpoint.adapterConfig)
    #expect(config["target_modules"] == ["model.embed_tokens", .string(Self.layer)])
    #expect(config["layers_to_transform"]?.isNull == true)
  }

  /// Layers that do not have the same modules are named one by one.
  @Test func layersThatDiffer() throws {
    let others = ["model.layers.2.self_attn.q_proj", "model.layers.2.mlp.up_proj"].flatMap {
      [Self.tensor("\($0).lora_a", [3, 2]), Self.tensor("\($0).lora_b", [2, 4])]
    }
    let config = try #require(open(Self.sound + others).adapterConfig)
    #expect(
      config["target_modules"] == [
        .string(Self.layer), "model.layers.2.mlp.up_proj", "model.layers.2.self_attn.q_proj",
      ])
    let same = try #require(open(Self.sound + others.prefix(2)).adapterConfig)
    #expect(same["target_modules"] == ["self_attn.q_proj"] && same["layers_to_transform"] == [1, 2])
  }

  @Test func alphaBesideScale() throws {
    let checkpoint = try open(Self.sound, #""lora_parameters": {"rank": 2, "scale": 3, "alpha": 16}"#)
    #expect(checkpoint.adapterConfig?["lora_alpha"] == 6)
    #expect(checkpoint.warnings.count == 1 && checkpoint.warnings[0].contains("'scale' alone is taken"))
  }

  @Test(arguments: [
    (#""a": 1"#, Failure.Code.malformed, "has no 'lora_parameters'"),
    (#""lora_parameters": {"rank": 2}"#, .malformed, "has no 'scale'"),
    (#""lora_parameters": {"rank": 2, "alpha": 4}"#, .malformed, "only 'alpha', which mlx-lm does not take"),
    (#""lora_parameters": {"rank": 2, "scale": -1}"#, .malformed, "'scale' is no number from 0 up"),
    (#""lora_parameters": {"rank": 2, "scale": "1"}"#, .malformed, "'scale' is no number from 0 up"),
    (#""lora_parameters": {"rank": 0, "scale": 1}"#, .malformed, "'rank' is no whole number from 1 up"),
    (#""lora_parameters": {"rank": 2e0, "scale": 1}"#, .malformed, "'rank' is no whole number from 1 up"),
    (#""fine_tune_type": "full", "lora_parameters": null"#, .unsupported, "fine_tune_type is 'full'"),
    (#""fine_tune_type": 1"#, .unsupported, "fine_tune_type is a number, known are lora and dora"),
  ]) func settingsThatAreRefused(settings: String, code: Failure.Code, message: String) throws {
    let failure = try #require(throws: Failure.self) { try open(Self.sound, settings) }
    #expect(failure.code == code && failure.message.contains(message), "\(failure)")
    #expect(failure.file?.hasSuffix("adapter_config.json") == true)
  }

  struct Row: CustomTestStringConvertible, Sendable {
    let testDescription: String
    let tensor: SafetensorsBuilder.Tensor
    let code: Failure.Code
    let message: String
    var settings = MLXAdapterTests.settings
  }

  private static let dora = #""fine_tune_type": "dora", "# + settings

  static let rows = [
    Row(
      testDescription: "a whole weight", tensor: tensor("model.norm.weight", [3]), code: .unsupported,
      message: "is no lora_a, lora_b or m of mlx-lm"),
    Row(testDescription: "no module", tensor: tensor("lora_a", [3, 2]), code: .unsupported, message: "is no lora_a"),
    Row(
      testDescription: "experts", tensor: tensor("model.layers.0.mlp.switch_mlp.up_proj.lora_a", [2, 2, 3]),
      code: .unsupported, message: "is of experts"),
    Row(
      testDescription: "a vector", tensor: tensor("model.layers.0.mlp.up_proj.lora_a", [2]), code: .malformed,
      message: "has shape [2], expected is a matrix"),
    Row(
      testDescription: "another rank", tensor: tensor("model.layers.0.mlp.up_proj.lora_b", [3, 2]), code: .malformed,
      message: "has shape [3, 2], expected is the rank 2 in dimension 0"),
    Row(
      testDescription: "a length without DoRA", tensor: tensor("\(layer).m", [4]), code: .malformed,
      message: "fine_tune_type is not 'dora'"),
    Row(
      testDescription: "lengths of an embedding", tensor: tensor("model.embed_tokens.m", [4]), code: .unsupported,
      message: "is DoRA of an embedding", settings: dora),
    Row(
      testDescription: "a length that is a matrix", tensor: tensor("\(layer).m", [4, 1]), code: .malformed,
      message: "expected is one row", settings: dora),
  ]

  @Test(arguments: rows) func tensorsThatAreRefused(row: Row) throws {
    _ = try open(Self.sound, row.settings)
    let failure = try #require(throws: Failure.self) { try open(Self.sound + [row.tensor], row.settings) }
    #expect(failure.code == row.code && failure.message.contains(row.message), "\(failure)")
    #expect(failure.tensor == row.tensor.name && failure.file?.hasSuffix("adapters.safetensors") == true)
  }
}
