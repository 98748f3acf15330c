import Bytes
import Quantization
import Tensors
import TestSupport
import Testing

@testable import Writing

/// The order of tensors and where one file ends and the next begins.
@Suite struct StepLayoutTests {
  /// A plan of tensors of the given names and byte counts (as one-byte elements); names that end in `proj.weight` are quantized BF16 weights.
  private func plan(_ tensors: [(name: String, bytes: Int)], limit: Int) throws -> WritePlan {
    let source = try MemorySource(
      tensors.map { name, bytes in
        name.hasSuffix("proj.weight")
          ? SafetensorsBuilder.Tensor(name, "BF16", [bytes / 2], [])
          : SafetensorsBuilder.Tensor(
            name, bytes % 4 == 0 ? "F32" : bytes % 2 == 0 ? "F16" : "U8",
            [bytes / (bytes % 4 == 0 ? 4 : bytes % 2 == 0 ? 2 : 1)], [])
      })
    let steps = tensors.enumerated().map { index, tensor in
      Step(tensor: index, encoder: tensor.name.hasSuffix("proj.weight") ? 1 : 0, origin: .stored(index))
    }
    let format = try #require(FourBitFormat(code: .nf4, blockSize: 64))
    return try StepLayout(maxShardBytes: limit).plan(
      steps,
      [
        CopyEncoder(),
        FourBitEncoder(scheme: FourBitScheme(format: format, usesDoubleQuantization: true, storage: .u8)),
      ], source: source, stored: source)
  }

  private func names(_ plan: WritePlan) -> [[String]] {
    plan.container.files.map { shard in plan.steps[shard.steps].map { plan.info(of: $0).name.string } }
  }

  @Test func layersInNumericOrder() throws {
    let plan = try plan(
      [
        ("embed.weight", 64), ("layers.10.a", 64), ("layers.9.a", 64), ("layers.2.a", 64), ("layers.2.b.7.c", 64),
        ("head.weight", 64),
      ],
      limit: 1 << 20)
    #expect(
      names(plan) == [["embed.weight", "layers.2.a", "layers.2.b.7.c", "layers.9.a", "layers.10.a", "head.weight"]])
    #expect(plan.container.files.map(\.name) == ["model.safetensors"])
  }

  @Test func quantizedWeightsFirstInTheirLayer() throws {
    let plan = try plan(
      [("layers.0.norm", 64), ("layers.0.proj.weight", 8192), ("layers.1.norm", 64), ("layers.1.proj.weight", 8192)],
      limit: 1 << 20)
    #expect(names(plan) == [["layers.0.proj.weight", "layers.0.norm", "layers.1.proj.weight", "layers.1.norm"]])
  }

  /// Whatever fills no multiple of 64 bytes goes to the end of its file, widest elements first.
  @Test func oddSizesAtTheEnd() throws {
    let plan = try plan(
      [
        ("layers.0.odd", 3), ("layers.0.half", 10), ("layers.0.norm", 64), ("layers.1.wide", 12),
        ("layers.1.proj.weight", 8192),
      ], limit: 1 << 20)
    #expect(
      names(plan) == [["layers.0.norm", "layers.1.proj.weight", "layers.1.wide", "layers.0.half", "layers.0.odd"]])
    var offset = 0
    for step in plan.steps {
      for output in try plan.outputs(of: step) {
        guard case .element(let type) = output.type else { continue }
        #expect(offset % type.alignment == 0, "\(output.name)")
        if !plan.encoder(of: step).keepsBytes, output.name.hasSuffix("proj.weight") { #expect(offset % 64 == 0) }
        offset += output.byteCount
      }
    }
    #expect(offset == plan.plannedByteCount)
  }

  /// A layer that fits a file is not cut; one that does not is cut between weights, never inside one.
  @Test(arguments: [1, 100, 4000, 6000, 7000, 13_000, 20_000, 1 << 20])
  func shardSizes(_ limit: Int) throws {
    let tensors = (0..<5).flatMap {
      [("l.\($0).proj.weight", 8192), ("l.\($0).q_proj.weight", 2048), ("l.\($0).norm", 128)]
    }
    let plan = try plan(tensors, limit: limit)
    #expect(
      plan.container.files.map(\.steps).reduce(into: 0) { $0 = $1.lowerBound == $0 ? $1.upperBound : -1 }
        == tensors.count)
    for shard in plan.container.files {
      let sizes = try plan.steps[shard.steps].map { try plan.outputs(of: $0).reduce(0) { $0 + $1.byteCount } }
      #expect(sizes.reduce(0, +) == shard.dataByteCount)
      #expect(shard.dataByteCount <= limit || sizes.count == 1, "\(shard)")
    }
    let layer = try plan.steps.prefix(3).reduce(0) { try $0 + plan.outputs(of: $1).reduce(0) { $0 + $1.byteCount } }
    for names in names(plan) where limit >= layer {
      for index in 0..<5 {
        let own = names.filter { $0.hasPrefix("l.\(index).") }
        #expect(own.isEmpty || own.count == 3)
      }
    }
    if limit == 1 << 20 { #expect(plan.container.files.count == 1) }
    if limit == 1 { #expect(plan.container.files.count == 15) }
  }

  @Test func manyTensors() throws {
    let plan = try plan((0..<100_001).map { ("layers.\($0).norm", 64) }, limit: 1 << 40)
    #expect(plan.container.files.map(\.steps.count) == [50_000, 50_000, 1])
    #expect(plan.container.files.map(\.name) == (1...3).map { "model-0000\($0)-of-00003.safetensors" })
  }

  @Test func noTensors() throws {
    let plan = try plan([], limit: 1000)
    #expect(plan.container.files.map(\.name) == ["model.safetensors"])
    #expect(try plan.header(of: 0).count % 4096 == 0)
  }

  @Test(arguments: [
    ("model.layers.12.mlp.up_proj.weight", "model.layers", 12), ("h.0.attn.weight", "h", 0),
    ("lm_head.weight", "lm_head.weight", -1),
    ("0.weight", "0.weight", -1), ("a.99999999999999999999.b", "a.99999999999999999999.b", -1), ("a..b", "a..b", -1),
    ("", "", -1),
    ("a.-1.b", "a.-1.b", -1),
  ])
  func layerOfAName(_ name: String, _ stack: String, _ number: Int) {
    let found = StepLayout.layer(of: TensorName(name))
    #expect(found.stack == TensorName(stack) && found.number == number)
  }

  @Test func headersBeginDataOnAPage() throws {
    let plan = try plan([("layers.0.proj.weight", 8192), ("layers.1.proj.weight", 8192)], limit: 5000)
    #expect(plan.container.files.count == 2)
    for shard in plan.container.files.indices { #expect(try plan.header(of: shard).count % 4096 == 0) }
  }
}
