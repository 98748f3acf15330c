import Bytes
import TestSupport
import Testing

@testable import Checkpoints

/// Weights of HQQ and torchao, which say of each module how it is stored. Values by hand.
@Suite struct ModuleSourceTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  private typealias Tensor = SafetensorsBuilder.Tensor

  /// - Parameter header: `__metadata__` of the file.
  private func open(
    _ tensors: [Tensor], _ method: String, header: String? = nil, dtype: String = "bfloat16"
  ) throws -> StoredModel {
    try directory.write("model.safetensors", SafetensorsBuilder(tensors, metadata: header).bytes)
    let config =
      "{\"model_type\": \"test\", \"dtype\": \"\(dtype)\", \"quantization_config\": {\"quant_method\": \"\(method)\"}}"
    try directory.write("config.json", Array(config.utf8))
    return try StoredModel(path: directory.path)
  }

  private func floats(_ values: [Float], _ type: String = "BF16") -> [UInt8] { TestModel.bytes(of: values, as: type) }

  private func number(_ value: Int, _ type: String = "I32") -> [UInt8] {
    (0..<(type == "I64" ? 8 : 4)).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
  }

  /// What HQQ says of the module `m`, without its codes.
  private func module(_ shape: [Int], group: Int, axis: Int, _ packing: String, scales: [Float], zeros: [Float])
    -> [Tensor]
  {
    let sizes = axis == 1 ? [scales.count, 1] : [1, scales.count]
    return [
      Tensor("m.scale", "BF16", sizes, floats(scales)), Tensor("m.zero", "BF16", sizes, floats(zeros)),
      Tensor("m.shape", "I64", [2], shape.flatMap { number($0, "I64") }),
      Tensor("m.group_size", "I32", [], number(group)), Tensor("m.axis", "I32", [], number(axis)),
      Tensor("m.packing", "U8", [packing.utf8.count], Array(packing.utf8)),
    ]
  }

  /// Checks name, shape and type of the only tensor, its values, and that any piece is part of the whole.
  private func expect(
    _ model: StoredModel, _ shape: [Int], _ type: String, _ values: [Float],
    _ location: SourceLocation = #_sourceLocation
  ) throws {
    let source = model.checkpoint
    #expect(source.tensors.map(\.name) == ["m.weight"], sourceLocation: location)
    #expect(source.tensors[0].shape == shape && source.typeName(of: 0) == type, sourceLocation: location)
    let whole = try source.bytes(0)
    #expect(whole == floats(values), sourceLocation: location)
    for start in 0..<values.count {
      for end in start...values.count {
        let range = 2 * start..<2 * end
        #expect(try source.bytes(0, range) == Array(whole[range]), "\(range)", sourceLocation: location)
      }
    }
    #expect(model.config?["quantization_config"] == nil, sourceLocation: location)
  }

  /// Three groups are three rows of codes, of which a word holds one in each of its highest fields.
  @Test func threeBitsOfHQQ() throws {
    let rows: [[UInt32]] = [[0, 1, 2, 3], [4, 5, 6, 7], [7, 6, 5, 4]]
    let words = (0..<4).map { rows[0][$0] << 27 | rows[1][$0] << 24 | rows[2][$0] << 21 }
    let parts = module([3, 4], group: 4, axis: 1, "3bit_32", scales: [1, 0.5, 2], zeros: [1, 2, 0.5])
    let model = try open([Tensor("m.W_q", "I32", [1, 4], words.flatMap { number(Int($0)) })] + parts, "hqq")
    try expect(model, [3, 4], "HQQ-Q3", [-1, 0, 1, 2, 1, 1.5, 2, 2.5, 13, 11, 9, 7])
  }

  /// Groups are columns of [2, 4]. 15 less 2^-7 is rounded to 15 before it is multiplied.
  @Test func columnsOfHQQ() throws {
    let parts = module(
      [2, 4], group: 2, axis: 0, "4bit_u8", scales: [1, 2, 0.5, 1.0234375], zeros: [0, 1, 2, 0.0078125])
    let model = try open([Tensor("m.W_q", "U8", [1, 4], [0x10, 0x2E, 0x3F, 0xF0])] + parts, "hqq")
    try expect(model, [2, 4], "HQQ-Q4", [1, 2, 0.5, 15.375, 0, 26, 6.5, -0.00799560546875])
  }

  /// Codes from -8 to 7, two in a byte, the even one low; scales and zero points are [groups, rows].
  @Test func fourBitsOfTorchAO() throws {
    let stated =
      "{\\\"_type\\\": \\\"Int4Tensor\\\", \\\"_data\\\": {\\\"block_size\\\": [1, 2]}, "
      + "\\\"_tensor_data_names\\\": [\\\"qdata\\\", \\\"scale\\\", \\\"zero_point\\\"]}"
    let model = try open(
      [
        Tensor("m._weight_qdata", "I8", [2, 2], [0x10, 0xF8, 0x72, 0x39]),
        Tensor("m._weight_scale", "BF16", [2, 2], floats([1, 2, 0.5, 4])),
        Tensor("m._weight_zero_point", "BF16", [2, 2], floats([0, 1, 10, -1])),
      ], "torchao", header: "{\"m.weight\": \"\(stated)\", \"tensor_names\": \"[\\\"m.weight\\\"]\"}")
    try expect(model, [2, 4], "TorchAO-INT4", [0, 1, 6, 9.5, 5, 15, -29, 11])
  }

  /// A header is as little to be trusted as a file.
  @Test(arguments: [
    "[]", "{\\\"_type\\\": 3}", "{\\\"_type\\\": \\\"Int8Tensor\\\"}",
    "{\\\"_type\\\": \\\"Int8Tensor\\\", \\\"_data\\\": 1}",
    "{\\\"_type\\\": \\\"Float8Tensor\\\", \\\"_tensor_data_names\\\": [1]}", "{",
  ])
  func headers(_ stated: String) throws {
    let tensors = [Tensor("m._weight_qdata", "I8", [2, 2], [1, 2, 3, 4]), Tensor("n", "BF16", [1], floats([1]))]
    for key in ["m.weight", ".", "m."] {
      do {
        let model = try open(tensors, "torchao", header: "{\"\(key)\": \"\(stated)\"}")
        #expect(model.quantizationMethod != .none)
      } catch {
        #expect((error as? Failure)?.code != .internal, "\(error)")
      }
    }
  }
}
