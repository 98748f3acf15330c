import Bytes
import Checkpoints
import JSON
import Quantization
import Tensors
import TestSupport
import Testing

@testable import Architectures
@testable import ModelFamilies
@testable import Writing

/// What stands for a weight in MLX's groups, and under which names.
@Suite struct GroupEncoderTests {
  private func format(_ mode: GroupFormat.Mode = .affine, _ bits: Int = 4, _ groupSize: Int = 64) throws -> GroupFormat
  {
    try #require(GroupFormat(mode: mode, bits: bits, groupSize: groupSize))
  }

  private func texts(_ outputs: [StoredTensor]) -> [String] {
    outputs.map { output in
      guard case .element(let type) = output.type else { return "" }
      return "\(output.name) \(type.name) \(output.shape) \(output.byteCount)"
    }
  }

  @Test(arguments: [
    (2, 64, "[48, 8] 1536"), (3, 64, "[48, 12] 2304"), (5, 32, "[48, 20] 3840"), (6, 128, "[48, 24] 4608"),
    (8, 32, "[48, 32] 6144"),
  ])
  func affine(_ bits: Int, _ groupSize: Int, _ codes: String) throws {
    let weight = try TensorInfo(name: "m.q_proj.weight", type: .bf16, shape: [48, 128])
    let encoder = GroupEncoder(format: try format(.affine, bits, groupSize))
    let groups = 128 / groupSize
    #expect(
      texts(try encoder.outputs(for: weight)) == [
        "m.q_proj.weight U32 \(codes)", "m.q_proj.scales BF16 [48, \(groups)] \(96 * groups)",
        "m.q_proj.biases BF16 [48, \(groups)] \(96 * groups)",
      ])
    #expect(encoder.schemeName == "MLX-Q\(bits)")
  }

  @Test func bytesOfScales() throws {
    let weight = try TensorInfo(name: "e.weight", type: .f32, shape: [3, 5, 64])
    #expect(
      texts(try GroupEncoder(format: format(.mxfp4, 4, 32)).outputs(for: weight)) == [
        "e.weight U32 [3, 5, 8] 480", "e.scales U8 [3, 5, 2] 30",
      ])
    #expect(texts(try GroupEncoder(format: format()).outputs(for: weight)).last == "e.biases F32 [3, 5, 1] 60")
  }

  @Test(arguments: [
    ("m.weight", ElementType.bf16, [4, 96]), ("m.weight", .i32, [4, 64]), ("m.bias", .bf16, [4, 64]),
    ("m.weight", .bf16, [64]),
  ])
  func refused(_ name: String, _ type: ElementType, _ shape: [Int]) throws {
    let weight = try TensorInfo(name: TensorName(name), type: type, shape: shape)
    let encoder = GroupEncoder(format: try format())
    #expect { try encoder.outputs(for: weight) } throws: { ($0 as? Failure)?.code == .unsupported }
  }

  /// The pieces' codes one after the other, and scales and biases where `finish` gives them, are those of the whole.
  @Test func piecesMakeTheWhole() throws {
    let (rows, columns) = (80, 4096)
    let values = (0..<rows * columns).map { Float(($0 &* 2_654_435_761) % 2001) / 1000 - 1 }
    let bytes = values.withUnsafeBytes { Array($0) }
    let source = try MemorySource([SafetensorsBuilder.Tensor("m.weight", "F32", [rows, columns], bytes)])
    let encoder = GroupEncoder(format: try format(.affine, 3, 64))
    let plan = WritePlan(
      source: source, stored: source, encoders: [encoder], steps: [Step(tensor: 0, encoder: 0, origin: .stored(0))],
      container: SafetensorsContainer(files: []))
    var cursor = PlanCursor(plan)
    var parts: [[UInt8]] = [[]]
    let buffer = PieceBuffer()
    var pieces = 0
    while let piece = cursor.next() {
      try buffer.fill(piece, from: source)
      parts[0] += buffer.output.withUnsafeBytes { Array($0) }
      pieces += 1
      guard piece.isLast else { continue }
      try encoder.finish(piece.work) { bytes throws(Failure) in parts.append(bytes.withUnsafeBytes { Array($0) }) }
    }
    #expect(pieces > 2)
    let outputs = try encoder.outputs(for: source.tensors[0])
    #expect(parts.map(\.count) == outputs.map(\.byteCount))
    var codes = [UInt8](repeating: 0, count: outputs[0].byteCount)
    var scales = [UInt8](repeating: 0, count: outputs[1].byteCount)
    var biases = [UInt8](repeating: 0, count: outputs[2].byteCount)
    do {
      var codeSpan = codes.mutableSpan
      var scaleSpan = scales.mutableSpan
      var biasSpan = biases.mutableSpan
      var codeBytes = codeSpan.mutableBytes
      var scaleBytes = scaleSpan.mutableBytes
      var biasBytes = biasSpan.mutableBytes
      try encoder.format.quantize(
        bytes.span.bytes, as: .f32, packed: &codeBytes, scales: &scaleBytes, biases: &biasBytes)
    }
    #expect(parts == [codes, scales, biases])
  }

  // MARK: - Names

  private func model(
    _ type: String, _ architecture: String, _ tensors: [(String, [Int])], _ members: [(String, JSONValue)] = []
  ) throws -> MLXModel {
    var config: JSONValue = ["model_type": .string(type), "architectures": [.string(architecture)]]
    for (key, value) in members { config[key] = value }
    return try MLXModel(
      tensors.map { try TensorInfo(name: TensorName($0.0), type: .bf16, shape: $0.1) }, config: config,
      configuration: ModelConfiguration(config), format: format(), unused: []
    ) { _ in false }
  }

  @Test func expertsAreStacked() throws {
    let experts = [1, 0, 2].flatMap { number in
      [("w1", [128, 64]), ("w2", [64, 128]), ("w3", [128, 64])].map {
        ("model.layers.0.block_sparse_moe.experts.\(number).\($0.0).weight", $0.1)
      }
    }
    let model = try model(
      "mixtral", "MixtralForCausalLM", experts + [("model.norm.weight", [64])], [("num_local_experts", 3)])
    let found = model.weights.map { "\($0.planned.name) \($0.planned.shape) \($0.planned.source)" }
    #expect(
      found == [
        "model.layers.0.block_sparse_moe.switch_mlp.gate_proj.weight [3, 128, 64] stacked([3, 0, 6])",
        "model.layers.0.block_sparse_moe.switch_mlp.down_proj.weight [3, 64, 128] stacked([4, 1, 7])",
        "model.layers.0.block_sparse_moe.switch_mlp.up_proj.weight [3, 128, 64] stacked([5, 2, 8])",
        "model.norm.weight [64] stored(9)",
      ])
    #expect(model.weights.map { $0.format != nil } == [true, true, true, false])
    #expect(throws: Failure.self) {
      try self.model("mixtral", "MixtralForCausalLM", experts, [("num_local_experts", 4)])
    }
    #expect(throws: Failure.self) {
      try self.model("mixtral", "MixtralForCausalLM", Array(experts.dropLast()), [("num_local_experts", 3)])
    }
  }

  @Test func namesOfGPT2() throws {
    let model = try model(
      "gpt2", "GPT2LMHeadModel",
      [
        ("transformer.wte.weight", [96, 64]), ("h.0.attn.c_attn.weight", [64, 192]), ("h.0.attn.c_attn.bias", [192]),
        ("h.0.attn.bias", [1, 1, 64, 64]), ("lm_head.weight", [96, 64]),
      ])
    #expect(
      model.weights.map { "\($0.planned.name) \($0.planned.shape)" } == [
        "model.wte.weight [96, 64]", "model.h.0.attn.c_attn.weight [192, 64]", "model.h.0.attn.c_attn.bias [192]",
      ])
    #expect(model.weights[1].planned.transform == .transpose)
  }

  /// Every class has a row of its own, and transformers has the class.
  @Test func families() {
    #expect(Set(MLXFamily.all.map(\.modelType)).count == MLXFamily.all.count)
    for family in MLXFamily.all {
      #expect(ClassRule(architecture: family.architecture) != nil, "\(family.architecture)")
    }
  }

  @Test func schemes() throws {
    for scheme in MLXScheme.allCases {
      let format = try #require(scheme.format())
      #expect(MLXScheme.name(of: format) == scheme.rawValue)
      #expect(format.groupSize == (scheme == .mxfp4 ? 32 : 64))
    }
    #expect(MLXScheme.mxfp4.format(groupSize: 64) == nil && MLXScheme.q4.format(groupSize: 16) == nil)
  }
}
