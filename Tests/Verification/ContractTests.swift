import Bytes
import Commands
import Foundation
import JSON
import Quantization
import Safetensors
import Tensors
import TestSupport
import Testing

@testable import Verification

/// What the trainers' loaders take without a word, and `verify` does not.
@Suite struct ContractTests {
  let directory: TemporaryDirectory
  private static let weight = "model.layers.0.self_attn.q_proj.weight"

  init() throws {
    directory = try TemporaryDirectory()
    var quantize = Quantize()
    quantize.run.progress = .silent
    let model = try TestModel(layers: 2).write(to: directory)
    _ = try quantize(model, output: directory.path("out")) { _ in }
    quantize.usesDoubleQuantization = false
    _ = try quantize(model, output: directory.path("plain")) { _ in }
  }

  /// Verifies `out` with some tensors and some of `config.json` changed, and the manifest left out or kept.
  private func verify(
    _ base: String = "out", keepsManifest: Bool = false, against: Bool = false,
    config: (inout JSONValue) -> Void = { _ in },
    tensors change: (inout [SafetensorsBuilder.Tensor]) -> Void = { _ in }
  ) throws -> Verify.Result {
    let bytes = try directory.read("\(base)/model.safetensors")
    let header = try SafetensorsHeader(ofFile: bytes)
    var tensors = header.tensors.indices.map { index in
      let info = header.tensors[index]
      return SafetensorsBuilder.Tensor(
        info.name.string, info.type.name, info.shape, Array(bytes[header.range(of: index)]))
    }
    change(&tensors)
    try? FileManager.default.removeItem(atPath: directory.path("changed"))
    _ = try directory.makeDirectory("changed")
    var json = try JSONValue(parsing: directory.read("\(base)/config.json"))
    config(&json)
    try directory.write("changed/config.json", Array(json.text(.indented).utf8))
    if keepsManifest {
      // In place, so that offsets and sizes are those of the manifest.
      var copy = bytes
      for (index, tensor) in tensors.enumerated() { copy.replaceSubrange(header.range(of: index), with: tensor.data) }
      try directory.write("changed/model.safetensors", copy)
      for name in ["nibble-manifest.json", "checksums.xxh128"] {
        try directory.write("changed/\(name)", directory.read("\(base)/\(name)"))
      }
      try directory.write("changed/config.json", directory.read("\(base)/config.json"))
    } else {
      try directory.write("changed/model.safetensors", SafetensorsBuilder(tensors).bytes)
    }
    var verify = Verify()
    verify.progress = .silent
    if against { verify.against = directory.path("model") }
    return try verify(directory.path("changed"))
  }

  private func index(_ tensors: [SafetensorsBuilder.Tensor], _ suffix: String) -> Int {
    tensors.firstIndex { $0.name == Self.weight + suffix } ?? 0
  }

  @Test(arguments: ["out", "plain"])
  func unchanged(_ base: String) throws {
    #expect(try verify(base).problems.isEmpty)
    #expect(try verify(base, keepsManifest: true, against: true).problems.isEmpty)
  }

  /// bitsandbytes computes its map anew in every process, and without FMA another one; loaders take what is in the file.
  @Test func mapOfAnotherProcessor() throws {
    let bytes = DoubleQuantization.mapOfProductsRounded.flatMap { value in
      (0..<4).map { UInt8(truncatingIfNeeded: value.bitPattern >> (8 * $0)) }
    }
    func change(_ tensors: inout [SafetensorsBuilder.Tensor]) {
      for index in tensors.indices where tensors[index].name.hasSuffix(".nested_quant_map") {
        tensors[index].data = bytes
      }
    }
    #expect(try verify(tensors: change).problems.isEmpty)
  }

  struct Silent: Sendable, CustomTestStringConvertible {
    var testDescription: String
    var suffix: String
    var base = "out"
    var change: @Sendable (inout [UInt8]) -> Void
    /// What is said without manifest and source; nil when these are needed.
    var message: String?
  }

  private static let nan: [UInt8] = [0, 0, 0xC0, 0x7F]

  static let silent: [Silent] = [
    Silent(testDescription: "flipped code", suffix: "", change: { $0[100] ^= 1 }),
    Silent(testDescription: "absmax zeroed", suffix: ".absmax", change: { for i in $0.indices { $0[i] = 0 } }),
    Silent(
      testDescription: "plain absmax zeroed", suffix: ".absmax", base: "plain",
      change: { for i in $0.indices { $0[i] = 0 } }),
    Silent(
      testDescription: "nested_absmax NaN", suffix: ".nested_absmax", change: { $0.replaceSubrange(0..<4, with: nan) },
      message: "nested_absmax 0 is not a finite positive number"),
    Silent(
      testDescription: "nested_absmax negative", suffix: ".nested_absmax", change: { $0[3] |= 0x80 },
      message: "nested_absmax 0 is not a finite positive number"),
    Silent(
      testDescription: "plain absmax infinite", suffix: ".absmax", base: "plain",
      change: { $0.replaceSubrange(8..<12, with: [0, 0, 0x80, 0x7F]) },
      message: "absmax 2 is not a finite number"),
    Silent(
      testDescription: "nested_quant_map", suffix: ".nested_quant_map", change: { $0[40] ^= 1 },
      message: "nested_quant_map is not the signed dynamic map of bitsandbytes"),
    Silent(
      testDescription: "quant_map", suffix: ".quant_map", change: { $0[5] ^= 1 },
      message: "quant_map is not that of NF4"),
    Silent(
      testDescription: "shape of as many values", suffix: ".quant_state.bitsandbytes__nf4",
      change: { $0 = Array(String(decoding: $0, as: UTF8.self).replacing("[64, 64]", with: "[32,128]").utf8) }),
  ]

  @Test(arguments: silent)
  func silentDamage(_ row: Silent) throws {
    func change(_ tensors: inout [SafetensorsBuilder.Tensor]) {
      let index = index(tensors, row.suffix)
      let before = tensors[index].data
      row.change(&tensors[index].data)
      #expect(tensors[index].data != before && tensors[index].data.count == before.count)
    }
    // With the manifest: the digest of the very tensor.
    let digest = try verify(row.base, keepsManifest: true, tensors: change)
    #expect(digest.problems.contains { $0.tensor == Self.weight + row.suffix && $0.problem.hasPrefix("digest is ") })
    // With the source: the weight. The kernels ignore the maps, so that values alone do not show them.
    if !row.suffix.hasSuffix("_map") {
      let compared = try verify(row.base, against: true, tensors: change)
      #expect(compared.problems.contains { $0.tensor == Self.weight }, "\(compared.problems)")
    }
    // With neither.
    let alone = try verify(row.base, tensors: change)
    if let message = row.message {
      #expect(alone.problems.map(\.problem) == [message] && alone.problems[0].tensor == Self.weight)
    } else {
      #expect(alone.problems.isEmpty)
      #expect(alone.notChecked.contains { $0.contains("nibble-manifest.json") })
    }
  }

  // MARK: - config.json

  struct Setting: Sendable, CustomTestStringConvertible {
    var testDescription: String
    var message: String
    var change: @Sendable (inout JSONValue) -> Void
  }

  private static func with(_ key: String, _ value: JSONValue?) -> @Sendable (inout JSONValue) -> Void {
    { config in
      var settings = config["quantization_config"]
      settings?[key] = value
      config["quantization_config"] = settings
    }
  }

  static let badSettings: [Setting] = [
    Setting(
      testDescription: "no quantization_config", message: "is a 4-bit weight, but there is no quantization_config",
      change: { $0["quantization_config"] = nil }),
    Setting(
      testDescription: "other method", message: "quant_method is 'gptq', but the weights are those of bitsandbytes",
      change: with("quant_method", "gptq")),
    Setting(testDescription: "no load_in_4bit", message: "load_in_4bit is not true", change: with("load_in_4bit", nil)),
    Setting(
      testDescription: "load_in_4bit false", message: "load_in_4bit is not true", change: with("load_in_4bit", false)),
    Setting(
      testDescription: "other code", message: "is nf4, bnb_4bit_quant_type says fp4",
      change: with("bnb_4bit_quant_type", "fp4")),
    Setting(
      testDescription: "no code, whose default is fp4", message: "is nf4, bnb_4bit_quant_type says fp4",
      change: with("bnb_4bit_quant_type", nil)),
    Setting(
      testDescription: "plain", message: "is stored with double quantization, bnb_4bit_use_double_quant says false",
      change: with("bnb_4bit_use_double_quant", false)),
    Setting(
      testDescription: "no word on nesting",
      message: "is stored with double quantization, bnb_4bit_use_double_quant says false",
      change: with("bnb_4bit_use_double_quant", nil)),
    Setting(
      testDescription: "other storage", message: "holds its codes as U8, bnb_4bit_quant_storage says bfloat16",
      change: with("bnb_4bit_quant_storage", "bfloat16")),
    Setting(
      testDescription: "quantized module that is listed",
      message:
        "is a 4-bit weight, but llm_int8_skip_modules leaves 'model.layers.0.self_attn.q_proj' in floating point",
      change: with("llm_int8_skip_modules", ["lm_head", "model.layers.0.self_attn.q_proj"])),
    Setting(
      testDescription: "quantized module listed by its end",
      message: "leaves 'model.layers.1.mlp.down_proj' in floating point",
      change: with("llm_int8_skip_modules", ["lm_head", "mlp.down_proj"])),
    Setting(
      testDescription: "module in floating point that is not listed",
      message: "is in floating point, but llm_int8_skip_modules does not list 'lm_head'",
      change: with("llm_int8_skip_modules", [])),
    Setting(
      testDescription: "list that is none", message: "llm_int8_skip_modules is not a list of strings",
      change: with("llm_int8_skip_modules", "lm_head")),
    Setting(
      testDescription: "list of numbers", message: "llm_int8_skip_modules is not a list of strings",
      change: with("llm_int8_skip_modules", [1])),
  ]

  @Test(arguments: badSettings)
  func badSetting(_ row: Setting) throws {
    let result = try verify(config: row.change)
    #expect(
      result.problems.contains { $0.problem.contains(row.message) && $0.file == "config.json" }, "\(result.problems)")
  }

  @Test func harmlessSettings() throws {
    let noType = try verify(config: Self.with("bnb_4bit_compute_dtype", nil))
    #expect(noType.problems.isEmpty && noType.warnings.contains { $0.contains("computes in float32") })
    let noList = try verify(config: Self.with("llm_int8_skip_modules", nil))
    #expect(noList.problems.isEmpty && noList.notChecked.contains { $0.contains("skip list") })
    #expect(try verify(config: Self.with("quant_method", nil)).problems.isEmpty)
  }
}
