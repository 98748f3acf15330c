import Bytes
import JSON
import Quantization
import Tensors
import TestSupport
import Testing

@testable import Checkpoints

/// Checkpoints that exist only quantized, read as the models that they were made from.
@Suite struct DequantizedSourceTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  private typealias Tensor = SafetensorsBuilder.Tensor

  private static let fp8 = "{\"quant_method\": \"fp8\", \"weight_block_size\": [2, 2]}"
  private static let gptq = "{\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": 4}"

  private static func compressed(_ weights: String, format: String = "pack-quantized") -> String {
    let group = "{\"targets\": [\"Linear\"], \"weights\": {\(weights)}}"
    return "{\"quant_method\": \"compressed-tensors\", \"format\": \"\(format)\", \"config_groups\": {\"a\": \(group)}}"
  }

  private func open(_ tensors: [Tensor], _ quantization: String, dtype: String = "bfloat16") throws -> StoredModel {
    var model = TestModel(tensors)
    model.config = "{\"model_type\": \"test\", \"dtype\": \"\(dtype)\", \"quantization_config\": \(quantization)}"
    return try StoredModel(path: model.write(to: directory))
  }

  private func bytes(_ words: [UInt32]) -> [UInt8] {
    words.flatMap { word in (0..<4).map { UInt8(word >> (8 * $0) & 0xFF) } }
  }

  private func floats(_ values: [Float], _ type: String = "F32") -> [UInt8] { TestModel.bytes(of: values, as: type) }

  /// Checks name, type, shape, type name and values of the first tensor, and that any piece is part of the whole.
  private func expect(
    _ model: StoredModel, _ name: String, _ shape: [Int], _ type: String, _ values: [Float], as dtype: String = "BF16",
    _ location: SourceLocation = #_sourceLocation
  ) throws {
    let source = model.checkpoint
    let index = try #require(source.index(of: TensorName(name)), sourceLocation: location)
    let info = source.tensors[index]
    #expect(info.type.name == dtype && info.shape == shape, sourceLocation: location)
    #expect(source.typeName(of: index) == type, sourceLocation: location)
    let whole = try source.bytes(index)
    #expect(whole == floats(values, dtype), sourceLocation: location)
    let width = info.type.bitWidth / 8
    for start in 0..<values.count {
      for end in start...values.count {
        let range = start * width..<end * width
        #expect(try source.bytes(index, range) == Array(whole[range]), "\(range)", sourceLocation: location)
      }
    }
    #expect(model.config?["quantization_config"] == nil, sourceLocation: location)
    #expect(model.quantizationMethod == .none, sourceLocation: location)
  }

  // MARK: - Written out by hand

  /// 1 to 9 by blocks of 2 × 2, the last of which have one row or one column.
  @Test func blocksOfFP8() throws {
    let codes: [UInt8] = [0x38, 0x40, 0x44, 0x48, 0x4A, 0x4C, 0x4E, 0x50, 0x51]
    let model = try open(
      [
        Tensor("m.weight", "F8_E4M3", [3, 3], codes),
        Tensor("m.weight_scale_inv", "F32", [2, 2], floats([1, 2, 4, 0.5])),
      ], Self.fp8)
    try expect(model, "m.weight", [3, 3], "FP8-E4M3", [1, 2, 6, 4, 5, 12, 28, 32, 4.5])
  }

  /// A product that float16 has no number for; what is infinite by its code stays so.
  @Test func productsBeyondFloat16() throws {
    func bytes(_ code: UInt8, _ scale: Float, _ type: String = "F8_E4M3", dtype: String = "float16") throws -> [UInt8] {
      let weight = Tensor("m.weight", type, [1, 3], [0x38, code, 0x38])
      let scales = Tensor("m.weight_scale_inv", "F32", [1, 2], floats([scale, 1]))
      return try open([weight, scales], Self.fp8, dtype: dtype).checkpoint.bytes(0, 2..<4)
    }
    #expect(try bytes(0x7E, 146) == floats([65408], "F16"))
    #expect(try bytes(0x7E, 146.25, dtype: "bfloat16") == floats([65536], "BF16"))
    #expect(try bytes(0x7C, 2, "F8_E5M2") == floats([.infinity], "F16"))
    #expect { try bytes(0xFE, 146.25) } throws: { error in
      let failure = error as? Failure
      return failure?.code == .malformed && failure?.tensor == "m.weight"
        && failure?.message == "element 1 is -65520.0, beyond the range of float16"
    }
  }

  /// Five bits of exponent, one scale for each row, in 16 bits.
  @Test func rowsOfE5M2() throws {
    let model = try open(
      [
        Tensor("m.weight", "F8_E5M2", [2, 2], [0x3C, 0xBC, 0x40, 0x3E]),
        Tensor("m.weight_scale", "BF16", [2, 1], floats([3, 0.5], "BF16")),
      ], "{\"quant_method\": \"fbgemm_fp8\"}")
    try expect(model, "m.weight", [2, 2], "FP8-E5M2", [3, -3, 1, 0.75])
  }

  /// What computing in few bits needs beside the weight is left out, and named.
  @Test func scalesOfActivations() throws {
    let model = try open(
      [
        Tensor("m.weight", "F8_E4M3", [1, 1], [0x38]), Tensor("m.weight_scale", "F32", [], floats([2])),
        Tensor("m.input_scale", "F32", [1], floats([1])), Tensor("n.k_scale", "BF16", [], floats([1], "BF16")),
        // A matrix is no scale, whatever it is called.
        Tensor("o.input_scale", "BF16", [2, 2], floats([1, 2, 3, 4], "BF16")),
      ], "{\"quant_method\": \"fp8\", \"activation_scheme\": \"static\"}")
    #expect(model.checkpoint.tensors.map(\.name.string) == ["m.weight", "o.input_scale"])
    let warnings = model.warnings.filter { $0.contains("left out") }
    #expect(warnings.count == 1 && warnings[0].names == ["m.input_scale", "n.k_scale"])
    try expect(model, "m.weight", [1, 1], "FP8-E4M3", [2])
  }

  /// Powers of two, and a NaN that is one.
  @Test func powersAndNaN() throws {
    let model = try open(
      [
        Tensor("m.weight", "F8_E4M3", [1, 4], [0x38, 0xB8, 0x80, 0x7F]),
        Tensor("m.weight_scale_inv", "F8_E8M0", [1, 2], [128, 126]),
      ], Self.fp8, dtype: "float32")
    let source = model.checkpoint
    let found = try source.bytes(0)
    #expect(Array(found[0..<12]) == floats([2, -2, -0.0]))
    #expect(found[14] & 0xC0 == 0xC0 && found[15] & 0x7F == 0x7F)
  }

  /// Stacks of experts, with one scale each, blocks of their own or rows of their own.
  @Test(arguments: [
    (shape: [2], scales: [1, 2] as [Float], block: "null"), ([2, 1, 1], [1, 2], "null"),
    ([2, 2, 1], [1, 1, 2, 2], "null"), ([2, 1, 1], [1, 2], "[2, 2]"),
  ])
  func stacks(shape: [Int], scales: [Float], block: String) throws {
    let model = try open(
      [
        Tensor("m.experts.up_proj", "F8_E4M3", [2, 2, 2], [0x38, 0x40, 0x44, 0x48, 0x38, 0x40, 0x44, 0x48]),
        Tensor("m.experts.up_proj_scale_inv", "F32", shape, floats(scales)),
      ], "{\"quant_method\": \"fp8\", \"weight_block_size\": \(block)}")
    try expect(model, "m.experts.up_proj", [2, 2, 2], "FP8-E4M3", [1, 2, 3, 4, 2, 4, 6, 8])
  }

  /// The worked example of gpt-oss, which comes out the other way round.
  @Test func expertsOfMXFP4() throws {
    let rows: [[UInt8]] = [[0x21] + [UInt8](repeating: 0, count: 15), [0x7A] + [UInt8](repeating: 0, count: 15)]
    let model = try open(
      [
        Tensor("m.up_proj_blocks", "U8", [1, 2, 1, 16], rows[0] + rows[1]),
        Tensor("m.up_proj_scales", "U8", [1, 2, 1], [127, 128]),
      ], "{\"quant_method\": \"mxfp4\"}")
    let values: [Float] = [0.5, -2, 1, 12] + [Float](repeating: 0, count: 60)
    try expect(model, "m.up_proj", [1, 32, 2], "MXFP4", values)
  }

  @Test func packedIntegers() throws {
    let words: [UInt32] = [0x7654_3210, 0xFEDC_BA98]
    let shape: [UInt8] = [1, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0]
    let model = try open(
      [
        Tensor("m.weight_packed", "I32", [1, 2], bytes(words)), Tensor("m.weight_shape", "I64", [2], shape),
        Tensor("m.weight_scale", "BF16", [1, 2], floats([1, 2], "BF16")),
      ], Self.compressed("\"num_bits\": 4, \"type\": \"int\", \"strategy\": \"group\", \"group_size\": 8"))
    try expect(model, "m.weight", [1, 16], "W4A16", (-8...7).map { Float($0 < 0 ? $0 : 2 * $0) })
  }

  /// A scale of E4M3 is divided by the one of all; two nibbles are a byte.
  @Test func nvfp4() throws {
    let levels: [UInt8] = [0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE]
    let model = try open(
      [
        Tensor("m.weight_packed", "U8", [1, 8], levels), Tensor("m.weight_scale", "F8_E4M3", [1, 1], [0x48]),
        Tensor("m.weight_global_scale", "F32", [1], floats([2])),
      ],
      Self.compressed(
        "\"num_bits\": 4, \"type\": \"float\", \"strategy\": \"tensor_group\", \"group_size\": 16",
        format: "nvfp4-pack-quantized"))
    let values: [Float] = [0, 1, 2, 3, 4, 6, 8, 12]
    try expect(model, "m.weight", [1, 16], "NVFP4", values + values.map { -$0 })
  }

  /// Inputs 0 to 7 of two outputs; zero points are stored less one, and one of 0 as 15.
  @Test func gptq() throws {
    // Outputs fill a word of zero points: only the first two are of account, and the others are 1.
    let codes: [UInt32] = [0x7654_3210, 0xFEDC_BA98, 0, 0, 0, 0, 0, 0]
    let scales = (0..<2).flatMap { group in (0..<8).map { _ in Float(group + 1) } }
    let model = try open(
      [
        Tensor("m.qweight", "I32", [1, 8], bytes(codes)),
        Tensor("m.qzeros", "I32", [2, 1], bytes([0x0000_007F, 0x0000_0077])),
        Tensor("m.scales", "F16", [2, 8], floats(scales, "F16")),
        Tensor("m.g_idx", "I32", [8], bytes([0, 0, 0, 0, 1, 1, 1, 1])),
      ], Self.gptq, dtype: "float16")
    let first: [Float] = [0, 1, 2, 3, -8, -6, -4, -2]
    let second: [Float] = [0, 1, 2, 3, 8, 10, 12, 14]
    let others: [Float] = (0..<6).flatMap { _ in [-1, -1, -1, -1, -2, -2, -2, -2] as [Float] }
    try expect(model, "m.weight", [8, 8], "GPTQ-Q4", first + second + others, as: "F16")
  }

  /// Columns 0 to 7 with codes 0 to 7.
  @Test func awq() throws {
    let model = try open(
      [
        Tensor("m.qweight", "I32", [1, 1], bytes([0x7531_6420])),
        Tensor("m.qzeros", "I32", [1, 1], bytes([0x1111_1111])),
        Tensor("m.scales", "F16", [1, 8], floats([1, 1, 1, 1, 2, 2, 2, 2], "F16")),
      ], "{\"quant_method\": \"awq\", \"bits\": 4, \"group_size\": 1, \"version\": \"gemm\"}", dtype: "float16")
    try expect(model, "m.weight", [8, 1], "AWQ-Q4", [-1, 0, 1, 2, 6, 8, 10, 12], as: "F16")
  }

  // MARK: - What is refused

  struct Hostile: Sendable, CustomTestStringConvertible {
    var testDescription: String
    var settings: String
    /// The tensors as `name type shape`, their bytes all zero.
    var tensors: [(name: String, type: String, shape: [Int])]
    var message: String
    var code = Failure.Code.malformed

    static let scaled = ("m.weight", "F8_E4M3", [3, 3])
    static let four = DequantizedSourceTests.compressed(
      "\"num_bits\": 4, \"type\": \"int\", \"strategy\": \"group\", \"group_size\": 8")

    static let all: [Hostile] = [
      Hostile("no scale", fp8, [scaled], "scales ('_scale_inv' or '_scale') are missing"),
      Hostile(
        "no weight", fp8, [scaled, ("m.weight_scale_inv", "F32", [2, 2]), ("n.weight_scale_inv", "F32", [2, 2])],
        "is part of a weight in FP8 that is not there"),
      Hostile(
        "scales of fewer blocks", fp8, [scaled, ("m.weight_scale_inv", "F32", [1, 2])],
        "'_scale_inv' has shape [1, 2], needed is [2, 2] for blocks of 2 × 2"),
      Hostile("one scale for blocks", fp8, [scaled, ("m.weight_scale_inv", "F32", [1])], "needed is [2, 2]"),
      Hostile("scales of whole numbers", fp8, [scaled, ("m.weight_scale_inv", "I32", [2, 2])], "scales in I32"),
      Hostile("scales of 64 bits", fp8, [scaled, ("m.weight_scale_inv", "F64", [2, 2])], "scales in F64"),
      Hostile(
        "two scales", fp8, [scaled, ("m.weight_scale_inv", "F32", [2, 2]), ("m.weight_scale", "F32", [2, 2])],
        "has both"),
      Hostile(
        "a weight that is plain", fp8,
        [
          scaled, ("m.weight_scale_inv", "F32", [2, 2]), ("n.weight", "BF16", [3, 3]),
          ("n.weight_scale_inv", "F32", [2, 2]),
        ], "but is BF16"),
      Hostile(
        "a vector", fp8, [("m.weight", "F8_E4M3", [3]), ("m.weight_scale_inv", "F32", [2])], "needed are matrices"),
      Hostile(
        "blocks of nothing", "{\"quant_method\": \"fp8\", \"weight_block_size\": [0, 2]}",
        [scaled, ("m.weight_scale_inv", "F32", [2, 2])], "weight_block_size is [0, 2]"),
      Hostile(
        "one size of blocks", "{\"quant_method\": \"fp8\", \"weight_block_size\": 2}",
        [scaled, ("m.weight_scale_inv", "F32", [2, 2])], "weight_block_size is 2"),
      Hostile(
        "MXFP4 without scales", "{\"quant_method\": \"mxfp4\"}", [("m_blocks", "U8", [1, 2, 1, 16])],
        "'m_scales' is missing"),
      Hostile(
        "a method beside another", "{\"quant_method\": \"mxfp4\"}",
        [("m_blocks", "U8", [1, 2, 1, 16]), ("m_scales", "U8", [1, 2, 1]), ("n.weight", "F8_E4M3", [2, 2])],
        "is F8_E4M3, and no weight of MXFP4"),
      Hostile(
        "MXFP4 in groups of 8", "{\"quant_method\": \"mxfp4\"}",
        [("m_blocks", "U8", [1, 2, 1, 8]), ("m_scales", "U8", [1, 2, 1])], "needed are U8 [experts, rows, groups, 16]"),
      Hostile(
        "MXFP4 twice", "{\"quant_method\": \"mxfp4\"}",
        [("m_blocks", "U8", [1, 2, 1, 16]), ("m_scales", "U8", [1, 2, 1]), ("m", "BF16", [1, 2, 2])],
        "beside 'm' itself"),
      Hostile(
        "no shape", four, [("m.weight_packed", "I32", [1, 2]), ("m.weight_scale", "BF16", [1, 2])],
        "'.weight_shape' is missing"),
      Hostile(
        "a shape of no columns", four,
        [
          ("m.weight_packed", "I32", [0, 2]), ("m.weight_scale", "BF16", [0, 2]),
          ("m.weight_shape", "I64", [2]),
        ], "has 2 words in a row, which are not 0 codes of 4 bits"),
      Hostile(
        "rows that disagree", four,
        [
          ("m.weight_packed", "I32", [1, 2]), ("m.weight_scale", "BF16", [1, 2]),
          ("m.weight_shape", "I64", [2]),
        ], "has 1 rows, and '.weight_shape' says [0, 0]"),
      Hostile(
        "a format of others", DequantizedSourceTests.compressed("", format: "marlin-24"),
        [("m.weight_packed", "I32", [1, 2])], "format 'marlin-24' is not known here", code: .unsupported),
      Hostile(
        "codes of no bits", DequantizedSourceTests.compressed("\"num_bits\": 0"),
        [("m.weight_packed", "I32", [1, 2])], "'num_bits' of weights is 0"),
      Hostile(
        "GPTQ without zero points", gptq, [("m.qweight", "I32", [1, 8]), ("m.scales", "F16", [2, 8])],
        "'.qzeros' is missing"),
      Hostile(
        "GPTQ with fewer scales", gptq,
        [
          ("m.qweight", "I32", [1, 8]), ("m.scales", "F16", [1, 8]),
          ("m.qzeros", "I32", [2, 1]),
        ], "needed is F16, BF16 or F32 of shape [2, 8]"),
      Hostile(
        "GPTQ of 5 bits", "{\"quant_method\": \"gptq\", \"bits\": 5, \"group_size\": 4}",
        [("m.qweight", "I32", [1, 8])], "5 bits", code: .unsupported),
      Hostile(
        "GPTQ for Marlin",
        "{\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": 4, \"checkpoint_format\": \"marlin\"}",
        [("m.qweight", "I32", [1, 8])], "checkpoint_format 'marlin'", code: .unsupported),
      Hostile(
        "AWQ for gemv", "{\"quant_method\": \"awq\", \"bits\": 4, \"group_size\": 4, \"version\": \"gemv\"}",
        [("m.qweight", "I32", [1, 8])], "version 'gemv'", code: .unsupported),
      Hostile(
        "a type of 8 bits", "{\"quant_method\": \"gptq\", \"bits\": -4, \"group_size\": 4}",
        [("m.qweight", "I32", [1, 8])], "'bits' is -4"),
    ]

    init(
      _ name: String, _ settings: String, _ tensors: [(String, String, [Int])], _ message: String,
      code: Failure.Code = .malformed
    ) {
      testDescription = name
      self.settings = settings
      self.tensors = tensors.map { (name: $0.0, type: $0.1, shape: $0.2) }
      self.message = message
      self.code = code
    }
  }

  @Test(arguments: Hostile.all)
  func refused(_ hostile: Hostile) throws {
    let tensors = try hostile.tensors.map { name, type, shape in
      let info = try TensorInfo(name: TensorName(name), type: #require(ElementType(name: type)), shape: shape)
      return Tensor(name, type, shape, [UInt8](repeating: 0, count: info.byteCount))
    }
    let failure = try #require(throws: Failure.self) { _ = try open(tensors, hostile.settings) }
    #expect(failure.code == hostile.code && "\(failure)".contains(hostile.message), "\(failure)")
  }

  /// A group of a column that there is not is found when it is read.
  @Test func columnsOfNoGroup() throws {
    let model = try open(
      [
        Tensor("m.qweight", "I32", [1, 8], bytes([0, 0, 0, 0, 0, 0, 0, 0])),
        Tensor("m.qzeros", "I32", [2, 1], bytes([0, 0])),
        Tensor("m.scales", "F16", [2, 8], [UInt8](repeating: 0, count: 32)),
        Tensor("m.g_idx", "I32", [8], bytes([0, 0, 0, 0, 1, 1, 1, 2])),
      ], Self.gptq)
    let failure = try #require(throws: Failure.self) { _ = try model.checkpoint.bytes(0) }
    #expect(failure.tensor == "m.g_idx" && failure.message.contains("puts column 7 into group 2"), "\(failure)")
  }

  /// Products that overflow disagree with something, and trap nowhere.
  @Test(arguments: [1 << 58, 1 << 61, Int.max])
  func overflow(_ size: Int) throws {
    let rows: [(String, [(String, String, [Int])])] = [
      (Self.fp8, [("m.weight", "F8_E4M3", [0, size]), ("m.weight_scale_inv", "F32", [0, 1])]),
      ("{\"quant_method\": \"mxfp4\"}", [("m_blocks", "U8", [0, 1, size, 16]), ("m_scales", "U8", [0, 1, size])]),
      (Hostile.four, [("m.weight_packed", "I32", [0, size]), ("m.weight_scale", "BF16", [0, size])]),
      (Self.gptq, [("m.qweight", "I32", [size, 0]), ("m.scales", "F16", [1, 0]), ("m.qzeros", "I32", [1, 0])]),
      (
        "{\"quant_method\": \"awq\", \"bits\": 4, \"group_size\": 4}",
        [("m.qweight", "I32", [0, size]), ("m.scales", "F16", [0, 0]), ("m.qzeros", "I32", [0, 0])]
      ),
    ]
    let shape = [UInt64(size), 0].flatMap { value in (0..<8).map { UInt8(value >> (8 * $0) & 0xFF) } }
    let asymmetric = Self.compressed(
      "\"num_bits\": 8, \"type\": \"int\", \"symmetric\": false, \"strategy\": \"group\", \"group_size\": 8")
    #expect(throws: Failure.self) {
      _ = try open(
        [
          Tensor("m.weight_packed", "I32", [size, 0], []), Tensor("m.weight_scale", "BF16", [size, 0], []),
          Tensor("m.weight_shape", "I64", [2], shape), Tensor("m.weight_zero_point", "I32", [1, 0], []),
        ], asymmetric)
    }
    for (settings, tensors) in rows {
      #expect(throws: Failure.self, "\(settings)") {
        _ = try open(tensors.map { Tensor($0.0, $0.1, $0.2, []) }, settings)
      }
    }
  }
}
