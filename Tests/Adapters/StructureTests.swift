import Bytes
import TestSupport
import Testing

@testable import Adapters

/// Experts, replicated layers, and names that lead to a parameter.
@Suite struct StructureTests {
  // MARK: - Experts

  private static let (experts, rank, inputs, outputs) = (3, 2, 4, 6)
  private static let path = "model.layers.0.mlp.experts"

  /// Two parameters: what goes in lies inside, in a wrapper more than what comes out.
  private func adapter(_ layout: ExpertLayout) -> (builder: AdapterBuilder, delta: (Bool, Int, Int, Int) -> Float) {
    let (experts, rank, inputs, outputs) = (Self.experts, Self.rank, Self.inputs, Self.outputs)
    // Down multiplies the other way round.
    let a = [wholeNumbers(experts * rank * inputs, seed: 1), wholeNumbers(experts * rank * outputs, seed: 2)]
    let b = [wholeNumbers(experts * rank * outputs, seed: 3), wholeNumbers(experts * rank * inputs, seed: 4)]
    var builder = AdapterBuilder(
      [
        .adapter("\(Self.path).base_layer.lora_A.weight", [experts * rank, inputs], a[0]),
        .adapter("\(Self.path).base_layer.lora_B.weight", [outputs, experts * rank], b[0]),
        .adapter("\(Self.path).lora_A.weight", [experts * rank, outputs], a[1]),
        .adapter("\(Self.path).lora_B.weight", [inputs, experts * rank], b[1]),
      ], rank: rank, alpha: 4)
    builder.set("target_parameters", "[\"experts.down_proj\", \"experts.gate_up_proj\"]")
    builder.set("target_modules", "[]")
    return (
      builder,
      { isDown, expert, output, input in
        let (a, b) = (a[isDown ? 1 : 0], b[isDown ? 1 : 0])
        let width = isDown ? outputs : inputs
        return (0..<rank).reduce(0) { sum, k in
          let column = layout == .peft ? k * experts + expert : expert * rank + k
          return sum + 2 * b[output * experts * rank + column] * a[(expert * rank + k) * width + input]
        }
      }
    )
  }

  private func zeros(_ name: String, _ shape: [Int]) -> SafetensorsBuilder.Tensor {
    .of(name, shape, [Float](repeating: 0, count: shape.reduce(1, *)))
  }

  @Test(arguments: ExpertLayout.allCases, [false, true])
  func stacked(_ layout: ExpertLayout, _ isTransposed: Bool) throws {
    let (experts, inputs, outputs) = (Self.experts, Self.inputs, Self.outputs)
    let (up, down) = ("\(Self.path).gate_up_proj", "\(Self.path).down_proj")
    var merging = try Merging([
      zeros(up, isTransposed ? [experts, inputs, outputs] : [experts, outputs, inputs]),
      zeros(down, isTransposed ? [experts, outputs, inputs] : [experts, inputs, outputs]),
    ])
    for name in [up, down] { merging.entries[name] = .init(parameter: name, isTransposed: isTransposed) }
    merging.settings.expertLayout = layout
    let (builder, delta) = adapter(layout)
    let merged = try merging.merged(builder)
    for (name, isDown) in [(up, false), (down, true)] {
      let values = try #require(merged[name])
      let (rows, columns) = isDown != isTransposed ? (inputs, outputs) : (outputs, inputs)
      for at in values.indices {
        let (expert, row, column) = (at / (rows * columns), at / columns % rows, at % columns)
        #expect(
          values[at] == (isTransposed ? delta(isDown, expert, column, row) : delta(isDown, expert, row, column)),
          "\(name) \(at)")
      }
    }
  }

  /// Gate and up of each expert in a file of their own: rows of one product.
  @Test(arguments: ExpertLayout.allCases)
  func storedOneByOne(_ layout: ExpertLayout) throws {
    let (experts, inputs, outputs) = (Self.experts, Self.inputs, Self.outputs)
    var base: [SafetensorsBuilder.Tensor] = []
    var entries: [String: BaseModel.Entry] = [:]
    // Not in order, as names sort.
    for expert in (0..<experts).reversed() {
      for (part, name) in ["w1", "w3", "w2"].enumerated() {
        let own = "model.layers.0.block_sparse_moe.experts.\(expert).\(name).weight"
        base.append(zeros(own, part == 2 ? [inputs, outputs] : [outputs / 2, inputs]))
        entries[own] =
          part == 2
          ? .init(parameter: "\(Self.path).down_proj", part: .init(expert: expert, index: 0, count: 1))
          : .init(parameter: "\(Self.path).gate_up_proj", part: .init(expert: expert, index: part, count: 2))
      }
    }
    var merging = try Merging(base)
    merging.entries = entries
    merging.settings.expertLayout = layout
    let (builder, delta) = adapter(layout)
    let merged = try merging.merged(builder)
    #expect(merged.plan.changes.count == 9)
    for expert in 0..<experts {
      for (part, name) in ["w1", "w3", "w2"].enumerated() {
        let values = try #require(merged["model.layers.0.block_sparse_moe.experts.\(expert).\(name).weight"])
        let columns = part == 2 ? outputs : inputs
        for at in values.indices {
          let row = at / columns + (part == 1 ? outputs / 2 : 0)
          #expect(values[at] == delta(part == 2, expert, row, at % columns), "\(expert) \(name) \(at)")
        }
      }
    }
    // One expert less, and the parameter is not whole.
    merging.base.removeLast()
    #expect(throws: Failure.self) { try merging.plan(builder) }
  }

  /// PEFT tries the patterns on the parameter's path, not on that of the module that holds it.
  @Test func patternsOfParameters() throws {
    let (up, down) = ("\(Self.path).gate_up_proj", "\(Self.path).down_proj")
    let merging = try Merging([
      zeros(up, [Self.experts, Self.outputs, Self.inputs]), zeros(down, [Self.experts, Self.inputs, Self.outputs]),
    ])
    var (builder, _) = adapter(.peft)
    builder.set("alpha_pattern", "{\"experts\": 64, \"experts.gate_up_proj\": 8, \"^.*down_proj\": 16}")
    builder.set("rank_pattern", "{\"gate_up_proj\": 2, \"experts.down_proj\": 2, \"experts\": 7}")
    #expect(try merging.plan(builder).changes.map(\.scale) == [4, 8])
    builder.set("rank_pattern", "{\"gate_up_proj\": 3}")
    #expect(throws: Failure.self) { try merging.plan(builder) }
  }

  /// One of the two parameters.
  @Test(arguments: [false, true])
  func oneParameter(_ isDown: Bool) throws {
    let (up, down) = ("\(Self.path).gate_up_proj", "\(Self.path).down_proj")
    let merging = try Merging([
      zeros(up, [Self.experts, Self.outputs, Self.inputs]), zeros(down, [Self.experts, Self.inputs, Self.outputs]),
    ])
    var (builder, _) = adapter(.peft)
    builder.tensors = Array(isDown ? builder.tensors.suffix(2) : builder.tensors.prefix(2))
    for index in builder.tensors.indices {
      builder.tensors[index].name = builder.tensors[index].name.replacing(".base_layer", with: "")
    }
    builder.set("target_parameters", isDown ? "[\"experts.down_proj\"]" : "[\"experts.gate_up_proj\"]")
    let merged = try merging.merged(builder)
    #expect(merged[up]?.contains { $0 != 0 } == !isDown && merged[down]?.contains { $0 != 0 } == isDown)
  }

  @Test func expertsInBlocksAreRefused() throws {
    let merging = try Merging([
      zeros("\(Self.path).gate_up_proj", [Self.experts, Self.outputs, Self.inputs]),
      zeros("\(Self.path).down_proj", [Self.experts, Self.inputs, Self.outputs]),
    ])
    var (builder, _) = adapter(.peft)
    for names in ["experts", "gate_up_proj"] {
      builder.set("use_bdlora", "{\"nblocks\": 2, \"target_modules_bd_a\": [\"\(names)\"]}")
      let failure = #expect(throws: Failure.self) { try merging.plan(builder) }
      #expect(failure?.code == .unsupported, "\(failure?.message ?? "")")
    }
    builder.set("use_bdlora", "{\"nblocks\": 2, \"target_modules_bd_a\": [\"q_proj\"]}")
    let plain = try merging.merged(builder)
    // Groups of inputs are for a base quantized by GPTQ; here A has all columns.
    builder.set("use_bdlora", nil)
    builder.set("use_qalora", "true")
    builder.set("qalora_group_size", "2")
    let grouped = try merging.merged(builder)
    for name in plain.names { #expect(plain[name] == grouped[name]) }
  }

  // MARK: - Layers

  @Test func replicatedLayers() throws {
    let merging = try Merging([
      .of("model.embed_tokens.weight", [1, 1], [5]), .of("model.layers.0.q.weight", [1, 1], [10]),
      .of("model.layers.1.q.weight", [1, 1], [20]), .of("model.layers.2.q.weight", [1, 1], [30]),
      .of("model.norm.weight", [1], [7]),
    ])
    var builder = AdapterBuilder(
      [
        .adapter("model.layers.1.q.lora_A.weight", [1, 1], [1]),
        .adapter("model.layers.1.q.lora_B.weight", [1, 1], [1]),
        .adapter("model.layers.3.q.lora_A.weight", [1, 1], [1]),
        .adapter("model.layers.3.q.lora_B.weight", [1, 1], [2]),
      ], rank: 1, alpha: 1)
    builder.set("layer_replication", "[[0, 2], [1, 3]]")
    let merged = try merging.merged(builder)
    #expect(
      merged.names == [
        "model.embed_tokens.weight", "model.layers.0.q.weight", "model.layers.1.q.weight", "model.layers.2.q.weight",
        "model.layers.3.q.weight", "model.norm.weight",
      ])
    #expect((0..<4).map { merged["model.layers.\($0).q.weight"] } == [[10], [21], [20], [32]])
    #expect(
      merged.plan.replicatedLayers?.count == 4 && merged.plan.warnings.contains { $0.contains("the base's 3 become 4") }
    )
    var plain = builder
    plain.set("layer_replication", nil)
    let failure = #expect(throws: Failure.self) { try merging.plan(builder, plain) }
    #expect(failure?.message.contains("do not agree in layer_replication") == true)
    builder.set("layer_replication", "[[0, 2], [2, 4]]")
    #expect(throws: Failure.self) { try merging.plan(builder) }
  }

  // MARK: - Names

  /// A parameter is found with the base model's prefix, without it, and under the name in the file.
  @Test(arguments: ["transformer.h.0.q", "h.0.q", "stored.0.q"])
  func names(_ path: String) throws {
    var merging = try Merging([.of("stored.0.q.weight", [1, 1], [1])])
    merging.entries["stored.0.q.weight"] = .init(parameter: "transformer.h.0.q.weight")
    merging.basePrefix = "transformer"
    let builder = AdapterBuilder(
      [.adapter("\(path).lora_A.weight", [1, 1], [1]), .adapter("\(path).lora_B.weight", [1, 1], [1])], rank: 1,
      alpha: 1)
    #expect(try merging.merged(builder)["stored.0.q.weight"] == [2])
  }

  @Test func unmatched() throws {
    let merging = try Merging([.of("model.layers.0.self_attn.q_proj.weight", [1, 1], [1])])
    let tensors = ["q_prjo", "k_proj"].flatMap { name in
      ["A", "B"].map {
        SafetensorsBuilder.Tensor.adapter("model.layers.0.self_attn.\(name).lora_\($0).weight", [1, 1], [1])
      }
    }
    let failure = #expect(throws: Failure.self) { try merging.plan(AdapterBuilder(tensors, rank: 1)) }
    #expect(failure?.message.hasPrefix("4 of the adapter's 4 tensors belong to nothing in the base: ") == true)
    for tensor in tensors { #expect(failure?.message.contains("'\(tensor.name)'") == true) }
    #expect(failure?.message.contains("(nearest: 'model.layers.0.self_attn.q_proj.weight')") == true)
    #expect(
      failure?.tensor == tensors[0].name && failure?.file?.hasSuffix("/adapter0/adapter_model.safetensors") == true)
  }
}
