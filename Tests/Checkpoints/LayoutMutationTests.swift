import Bytes
import Foundation
import TestSupport
import Testing

@testable import Checkpoints

/// Checkpoints of each method of quantization whose configuration, header or values are damaged, always the same: each
/// is read or refused with a typed failure. Each method runs in a process of its own, which a trap would end; in an
/// optimized build with 2000 damages.
@Suite struct LayoutMutationTests {
  private static let count = Build.isOptimized ? 2000 : 120

  @Test func fp8() async { await #expect(processExitsWith: .success) { LayoutMutationTests.run("fp8") } }
  @Test func mxfp4() async { await #expect(processExitsWith: .success) { LayoutMutationTests.run("mxfp4") } }
  @Test func packed() async { await #expect(processExitsWith: .success) { LayoutMutationTests.run("packed") } }
  @Test func nvfp4() async { await #expect(processExitsWith: .success) { LayoutMutationTests.run("nvfp4") } }
  @Test func gptq() async { await #expect(processExitsWith: .success) { LayoutMutationTests.run("gptq") } }
  @Test func awq() async { await #expect(processExitsWith: .success) { LayoutMutationTests.run("awq") } }
  @Test func hqq() async { await #expect(processExitsWith: .success) { LayoutMutationTests.run("hqq") } }
  @Test func torchAO() async { await #expect(processExitsWith: .success) { LayoutMutationTests.run("torchao") } }

  private typealias Tensor = SafetensorsBuilder.Tensor

  private struct Seed {
    var tensors: [Tensor]
    var settings: String
    var header: String?
  }

  private static func floats(_ count: Int, _ type: String) -> [UInt8] {
    TestModel.bytes(of: (0..<count).map { Float($0 % 7) / 4 - 0.5 }, as: type)
  }

  private static func words(_ values: [UInt32]) -> [UInt8] {
    values.flatMap { value in (0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) } }
  }

  private static func numbers(_ values: [Int]) -> [UInt8] {
    values.flatMap { value in (0..<8).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) } }
  }

  private static func compressed(_ format: String, _ weights: String) -> String {
    "{\"quant_method\": \"compressed-tensors\", \"format\": \"\(format)\", \"config_groups\": {\"group_0\": "
      + "{\"targets\": [\"Linear\"], \"weights\": {\(weights)}}}}"
  }

  private static let seeds: [String: Seed] = [
    "fp8": Seed(
      tensors: [
        Tensor("m.weight", "F8_E4M3", [3, 3], [0x38, 0x40, 0x44, 0x48, 0x4A, 0x4C, 0x4E, 0x50, 0x51]),
        Tensor("m.weight_scale_inv", "F32", [2, 2], floats(4, "F32")),
      ], settings: "{\"quant_method\": \"fp8\", \"weight_block_size\": [2, 2]}"),
    "mxfp4": Seed(
      tensors: [
        Tensor("m.up_proj_blocks", "U8", [1, 2, 1, 16], (0..<32).map { UInt8(7 * $0) }),
        Tensor("m.up_proj_scales", "U8", [1, 2, 1], [127, 128]),
      ], settings: "{\"quant_method\": \"mxfp4\"}"),
    "packed": Seed(
      tensors: [
        Tensor("m.weight_packed", "I32", [1, 2], words([0x7654_3210, 0xFEDC_BA98])),
        Tensor("m.weight_shape", "I64", [2], numbers([1, 16])),
        Tensor("m.weight_scale", "BF16", [1, 2], floats(2, "BF16")),
      ],
      settings: compressed(
        "pack-quantized", "\"num_bits\": 4, \"type\": \"int\", \"strategy\": \"group\", \"group_size\": 8")),
    "nvfp4": Seed(
      tensors: [
        Tensor("m.weight_packed", "U8", [1, 8], (0..<8).map { UInt8(31 * $0) }),
        Tensor("m.weight_scale", "F8_E4M3", [1, 1], [0x48]),
        Tensor("m.weight_global_scale", "F32", [1], floats(1, "F32")),
      ],
      settings: compressed(
        "nvfp4-pack-quantized",
        "\"num_bits\": 4, \"type\": \"float\", \"strategy\": \"tensor_group\", \"group_size\": 16")),
    "gptq": Seed(
      tensors: [
        Tensor("m.qweight", "I32", [1, 8], words((0..<8).map { 0x1234_5678 &* ($0 + 1) })),
        Tensor("m.qzeros", "I32", [2, 1], words([0x7F, 0x77])),
        Tensor("m.scales", "F16", [2, 8], floats(16, "F16")),
        Tensor("m.g_idx", "I32", [8], words([0, 0, 0, 0, 1, 1, 1, 1])),
      ], settings: "{\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": 4}"),
    "awq": Seed(
      tensors: [
        Tensor("m.qweight", "I32", [1, 1], words([0x7531_6420])),
        Tensor("m.qzeros", "I32", [1, 1], words([0x1111_1111])), Tensor("m.scales", "F16", [1, 8], floats(8, "F16")),
      ], settings: "{\"quant_method\": \"awq\", \"bits\": 4, \"group_size\": 1, \"version\": \"gemm\"}"),
    "hqq": Seed(
      tensors: [
        Tensor("m.W_q", "U8", [1, 4], [0x10, 0x2E, 0x3F, 0xF0]), Tensor("m.scale", "BF16", [1, 4], floats(4, "BF16")),
        Tensor("m.zero", "BF16", [1, 4], floats(4, "BF16")), Tensor("m.shape", "I64", [2], numbers([2, 4])),
        Tensor("m.group_size", "I32", [], words([2])), Tensor("m.axis", "I32", [], words([0])),
        Tensor("m.packing", "U8", [7], Array("4bit_u8".utf8)),
      ], settings: "{\"quant_method\": \"hqq\"}"),
    "torchao": Seed(
      tensors: [
        Tensor("m._weight_qdata", "I8", [2, 2], [0x10, 0xF8, 0x72, 0x39]),
        Tensor("m._weight_scale", "BF16", [2, 2], floats(4, "BF16")),
        Tensor("m._weight_zero_point", "BF16", [2, 2], floats(4, "BF16")),
      ], settings: "{\"quant_method\": \"torchao\"}",
      header: "{\"m.weight\": \"{\\\"_type\\\": \\\"Int4Tensor\\\", \\\"_data\\\": {\\\"block_size\\\": [1, 2]}, "
        + "\\\"_tensor_data_names\\\": [\\\"qdata\\\", \\\"scale\\\", \\\"zero_point\\\"]}\", "
        + "\"tensor_names\": \"[\\\"m.weight\\\"]\"}"),
  ]

  private static func run(_ name: String) {
    guard let seed = seeds[name] else { fail("no seed '\(name)'") }
    let config = Array(
      "{\"model_type\": \"test\", \"dtype\": \"bfloat16\", \"quantization_config\": \(seed.settings)}".utf8)
    let builder = SafetensorsBuilder(seed.tensors, metadata: seed.header)
    let (weights, data) = (builder.bytes, seed.tensors.reduce(0) { $0 + $1.data.count })
    var mutator = Mutator(seed: 23)
    var generator = SplitMix64(seed: 29)
    var accepted = 0
    do {
      let directory = try TemporaryDirectory()
      try directory.write("config.json", config)
      try directory.write("model.safetensors", weights)
      guard check(directory, "\(name), whole") else { fail("\(name) is refused as it is") }
      for number in 0..<count {
        switch number % 3 {
        case 0: try directory.write("config.json", mutator.mutated(config))
        case 1:
          try directory.write(
            "model.safetensors", Mutator.withFittingLength(mutator.mutated(weights), data: data))
        default:
          // Numbers that say of others where they are: the data itself.
          var damaged = weights
          let at = Int.random(in: damaged.count - data..<damaged.count, using: &generator)
          damaged[at] = UInt8.random(in: 0...255, using: &generator)
          try directory.write("model.safetensors", damaged)
        }
        if check(directory, "\(name), damage \(number)") { accepted += 1 }
        try directory.write("config.json", config)
        try directory.write("model.safetensors", weights)
      }
    } catch { fail("\(error)") }
    // A harness whose every file is refused early would test nothing.
    guard accepted > count / 20 else { fail("\(name): only \(accepted) of \(count) were accepted") }
  }

  /// True when the checkpoint is read whole; ends the process when it is neither read nor refused as it should be.
  private static func check(_ directory: TemporaryDirectory, _ name: String) -> Bool {
    do throws(Failure) {
      let model = try StoredModel(path: directory.path)
      for (index, tensor) in model.checkpoint.tensors.enumerated() {
        // No more than the damaged sizes of a file of some hundred bytes can say.
        guard tensor.byteCount < 1 << 20 else { fail("\(name): tensor \(index) of \(tensor.byteCount) bytes") }
        _ = try model.checkpoint.bytes(of: index)
      }
      return true
    } catch {
      let text = error.description
      guard [.malformed, .unsupported, .missing].contains(error.code), text.utf8.count <= 4096,
        !text.utf8.contains(where: { $0 < 0x20 || $0 == 0x7F })
      else { fail("\(name): \(error.code) \(text)") }
      return false
    }
  }

  private static func fail(_ message: String) -> Never {
    FileHandle.standardError.write(Data((message + "\n").utf8))
    exit(1)
  }
}
