import Bytes
import Checkpoints
import JSON
import Quantization
import Tensors
import TestSupport
import Testing

@testable import Writing

/// What stands for a weight in compressed-tensors, and under which names.
@Suite struct ScaledEncoderTests {
  static let formats = CompressedScheme.allCases.compactMap { $0.format() }

  private func texts(_ scheme: CompressedScheme, _ type: ElementType, _ shape: [Int]) throws -> [String] {
    let weight = try TensorInfo(name: "m.q.weight", type: type, shape: shape)
    return try ScaledEncoder(format: #require(scheme.format())).outputs(for: weight).map { output in
      guard case .element(let type) = output.type else { return "" }
      return "\(output.name) \(type.name) \(output.shape)"
    }
  }

  @Test func outputs() throws {
    #expect(
      try texts(.fp8Channel, .bf16, [5, 7]) == ["m.q.weight F8_E4M3 [5, 7]", "m.q.weight_scale BF16 [5, 1]"])
    #expect(
      try texts(.fp8Block, .f16, [129, 200]) == ["m.q.weight F8_E4M3 [129, 200]", "m.q.weight_scale F16 [2, 2]"])
    #expect(
      try texts(.w4a16, .f32, [3, 256]) == [
        "m.q.weight_packed I32 [3, 32]", "m.q.weight_scale F32 [3, 2]", "m.q.weight_shape I64 [2]",
      ])
    #expect(
      try texts(.mxfp4a16, .bf16, [3, 64]) == ["m.q.weight_packed U8 [3, 32]", "m.q.weight_scale U8 [3, 2]"])
    #expect(
      try texts(.nvfp4a16, .bf16, [3, 64]) == [
        "m.q.weight_packed U8 [3, 32]", "m.q.weight_scale F8_E4M3 [3, 4]", "m.q.weight_global_scale F32 [1]",
      ])
  }

  @Test(arguments: [
    ("m.weight", ElementType.bf16, [4, 96]), ("m.weight", .i32, [4, 128]), ("m.bias", .bf16, [4, 128]),
    ("m.weight", .bf16, [128]), ("m.weight", .bf16, [2, 4, 128]),
  ])
  func refused(_ name: String, _ type: ElementType, _ shape: [Int]) throws {
    let weight = try TensorInfo(name: TensorName(name), type: type, shape: shape)
    let encoder = ScaledEncoder(format: try #require(CompressedScheme.w4a16.format()))
    #expect { try encoder.outputs(for: weight) } throws: { ($0 as? Failure)?.code == .unsupported }
  }

  /// The pieces' codes one after the other, and the scales where `finish` gives them, are those of the whole.
  @Test(arguments: formats.map { ($0, false) } + formats.filter(\.isSearchable).map { ($0, true) })
  func piecesMakeTheWhole(_ format: ScaledFormat, isSearched: Bool) throws {
    let (rows, columns) = (330, 1024)
    let values = (0..<rows * columns).map { Float(($0 &* 2_654_435_761) % 2001) / 1000 - 1 }
    let bytes = values.withUnsafeBytes { Array($0) }
    let source = try MemorySource([SafetensorsBuilder.Tensor("m.weight", "F32", [rows, columns], bytes)])
    let means = Means(values: (0..<columns).map { Float($0 % 7) })
    let encoder = ScaledEncoder(
      format: format, magnitudes: LargestMagnitudes(source, groups: [[0]]),
      search: isSearched ? ScaleSearch(.positive, importance: means) : nil)
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
    do {
      var codeSpan = codes.mutableSpan
      var scaleSpan = scales.mutableSpan
      var codeBytes = codeSpan.mutableBytes
      var scaleBytes = scaleSpan.mutableBytes
      if isSearched {
        let search = ScaledSearch(allowsNegative: false, weights: ColumnWeights(means.values, blockSize: 0))
        try format.quantize(
          bytes.span.bytes, as: .f32, columns: columns, globalScale: 2688, search: search, codes: &codeBytes,
          scales: &scaleBytes)
      } else {
        try format.quantize(
          bytes.span.bytes, as: .f32, columns: columns, globalScale: 2688, codes: &codeBytes, scales: &scaleBytes)
      }
    }
    #expect(parts[0] == codes && parts[1] == scales)
    if format.kind == .int4 { #expect(parts[2] == [0x4A, 1, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0]) }
    if format.kind == .nvfp4 { #expect(parts[2] == [0, 0, 0x28, 0x45]) }
  }

  private struct Means: ColumnMeans {
    let values: [Float]

    func means(for weight: TensorInfo) -> [Float]? { values }
  }

  /// The scale of NVFP4 is that of all weights that are computed as one.
  @Test func sharedScale() throws {
    func tensor(_ name: String, _ value: Float) -> SafetensorsBuilder.Tensor {
      SafetensorsBuilder.Tensor(name, "F32", [1, 16], Array(repeating: value, count: 16).withUnsafeBytes { Array($0) })
    }
    let source = try MemorySource([tensor("q", 1), tensor("k", -4), tensor("o", 2)])
    let magnitudes = LargestMagnitudes(source, groups: [[0, 1], [2]])
    #expect(try (0..<3).map { try magnitudes.globalScale(of: $0, .f32) } == [672, 672, 1344])
  }

  @Test func names() {
    for scheme in CompressedScheme.allCases {
      #expect(scheme.format().map { CompressedScheme($0) } == scheme)
    }
    #expect(CompressedScheme.w4a16.format(groupSize: 32)?.blockColumns == 32)
    #expect(
      CompressedScheme.w4a16.format(groupSize: 48) == nil && CompressedScheme.mxfp4a16.format(groupSize: 64) == nil)
    #expect(CompressedScheme.mxfp4a16.format(groupSize: 32) == .mxfp4)
    #expect(CompressedScheme.fp8Block.format(groupSize: 128) == nil)
  }
}
