import Bytes
import Checkpoints
import Quantization
import Tensors
import TestSupport
import Testing

@testable import Writing

/// Stacks of experts as gpt-oss has them.
@Suite struct ExpertEncoderTests {
  private func outputs(_ type: ElementType, _ shape: [Int]) throws -> [String] {
    let stack = try TensorInfo(name: "m.experts.down_proj", type: type, shape: shape)
    return try ExpertEncoder(takesMatrices: false).outputs(for: stack).map { output in
      guard case .element(let type) = output.type else { return "" }
      return "\(output.name) \(type.name) \(output.shape)"
    }
  }

  @Test func outputs() throws {
    #expect(
      try outputs(.bf16, [3, 5, 96]) == [
        "m.experts.down_proj_blocks U8 [3, 5, 3, 16]", "m.experts.down_proj_scales U8 [3, 5, 3]",
      ])
  }

  @Test(arguments: [
    ("has 80 inputs, which are no whole blocks of 32", ElementType.bf16, [3, 5, 80]),
    ("is BF16 of shape [5, 96], and no stack of experts' matrices", .bf16, [5, 96]),
    ("is U8 of shape [3, 5, 96], and no stack of experts' matrices", .u8, [3, 5, 96]),
  ])
  func refused(_ message: String, _ type: ElementType, _ shape: [Int]) throws {
    let failure = #expect(throws: Failure.self) { try outputs(type, shape) }
    #expect(failure?.code == .unsupported && failure?.message == message && failure?.tensor == "m.experts.down_proj")
  }

  private struct Stack {
    let experts = 3
    let inputs = 1088
    let outputs = 1250
    /// [experts, inputs, outputs], as transformers has them.
    var values: [Float]

    init() {
      values = (0..<experts * inputs * outputs).map { Float(($0 &* 2_654_435_761) % 2001) / 1000 - 1 }
    }

    func turned() -> [Float] {
      var turned: [Float] = []
      turned.reserveCapacity(values.count)
      for expert in 0..<experts {
        for output in 0..<outputs {
          for input in 0..<inputs { turned.append(values[(expert * inputs + input) * outputs + output]) }
        }
      }
      return turned
    }

    func plan(_ takesMatrices: Bool) throws -> WritePlan {
      let bytes = values.withUnsafeBytes { Array($0) }
      let stored = try MemorySource([SafetensorsBuilder.Tensor("w", "F32", [experts, inputs, outputs], bytes)])
      return WritePlan(
        source: try TransposedSource(stored, [0]), stored: stored,
        encoders: [ExpertEncoder(takesMatrices: takesMatrices)],
        steps: [Step(tensor: 0, encoder: 0, origin: .derived([0]))], container: SafetensorsContainer(files: []))
    }
  }

  /// Strips and whole matrices give the blocks and scales of the whole stack.
  @Test func piecesMakeTheWhole() throws {
    let stack = Stack()
    let turned = stack.turned().withUnsafeBytes { Array($0) }
    var codes = [UInt8](repeating: 0, count: stack.values.count / 2)
    var scales = [UInt8](repeating: 0, count: stack.values.count / 32)
    do {
      var codeSpan = codes.mutableSpan
      var scaleSpan = scales.mutableSpan
      var codeBytes = codeSpan.mutableBytes
      var scaleBytes = scaleSpan.mutableBytes
      try ScaledFormat.nearestMXFP4.quantize(
        turned.span.bytes, as: .f32, columns: stack.inputs, globalScale: 1, codes: &codeBytes, scales: &scaleBytes)
    }
    for takesMatrices in [false, true] {
      let plan = try stack.plan(takesMatrices)
      var cursor = PlanCursor(plan)
      var parts: [[UInt8]] = [[]]
      let buffer = PieceBuffer()
      var pieces = 0
      while let piece = cursor.next() {
        try buffer.fill(piece, from: plan.source)
        parts[0] += buffer.output.withUnsafeBytes { Array($0) }
        pieces += 1
        guard piece.isLast else { continue }
        try plan.encoders[0].finish(piece.work) { bytes throws(Failure) in
          parts.append(bytes.withUnsafeBytes { Array($0) })
        }
      }
      #expect(takesMatrices ? pieces == stack.experts : pieces > stack.experts)
      #expect(parts == [codes, scales])
    }
  }

  /// What is stored already goes through byte for byte, under the stack's name in the output.
  @Test func storedStack() throws {
    let grid = [2, 700, 130]
    let bytes = (0..<grid.reduce(16, *)).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 9) }
    let scales = Array(bytes.prefix(bytes.count / 16).reversed())
    let stored = try MemorySource([
      SafetensorsBuilder.Tensor("other", "U8", [1], [1]), SafetensorsBuilder.Tensor("p_scales", "U8", grid, scales),
      SafetensorsBuilder.Tensor("p_blocks", "U8", grid + [16], bytes),
    ])
    let stack = try TensorInfo(name: "m.down_proj", type: .bf16, shape: [2, 4160, 700])
    let encoder = StoredExpertEncoder(stored, parts: [stack.name: (blocks: 2, scales: 1)])
    #expect(try encoder.outputs(for: stack).map(\.name) == ["m.down_proj_blocks", "m.down_proj_scales"])
    #expect(try encoder.outputs(for: stack).map(\.shape) == [grid + [16], grid])
    #expect(encoder.storedByteCount(of: stack) == bytes.count + scales.count)
    let work = TensorWork(Step(tensor: 0, encoder: 0, origin: .derived([0])), at: 0, stack, encoder)
    var parts: [[UInt8]] = [[]]
    let buffer = PieceBuffer()
    let size = encoder.pieceByteCount(for: stack)
    for start in stride(from: 0, to: stack.byteCount, by: size) {
      try buffer.fill(Piece(work: work, range: start..<min(start + size, stack.byteCount)), from: stored)
      parts[0] += buffer.output.withUnsafeBytes { Array($0) }
    }
    try encoder.finish(work) { bytes throws(Failure) in parts.append(bytes.withUnsafeBytes { Array($0) }) }
    #expect(size < stack.byteCount && parts == [bytes, scales])
    let another = try TensorInfo(name: "m.down_proj", type: .bf16, shape: [2, 4160, 701])
    #expect { try encoder.outputs(for: another) } throws: { ($0 as? Failure)?.code == .internal }
  }

  /// The position is that in the stack as it is stored.
  @Test func notFinite() throws {
    var stack = Stack()
    let position = (2 * stack.inputs + 700) * stack.outputs + 1003
    stack.values[position] = .nan
    let plan = try stack.plan(false)
    var cursor = PlanCursor(plan)
    let buffer = PieceBuffer()
    let failure = #expect(throws: Failure.self) {
      while let piece = cursor.next() { try buffer.fill(piece, from: plan.source) }
    }
    #expect(failure?.code == .malformed && failure?.tensor == "w")
    #expect(failure?.message.hasPrefix("element \(position) is nan") == true, "\(String(describing: failure))")
  }
}
