import Bytes
import TestSupport
import Testing

@testable import Adapters

@Suite struct FactorTermTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  private func term(
    _ a: SafetensorsBuilder.Tensor, _ b: SafetensorsBuilder.Tensor, _ shape: LowRankFactors.Shape,
    layout: ExpertLayout = .peft, _ change: (inout AdapterBuilder) -> Void = { _ in }
  ) throws -> FactorTerm {
    var builder = AdapterBuilder([a, b], rank: shape.rank)
    change(&builder)
    let adapter = try Adapter(path: builder.write(to: directory))
    return FactorTerm(adapter: adapter, module: adapter.modules[0], scale: 1, shape: shape, layout: layout)
  }

  private func a(_ shape: [Int], _ values: [Float]) -> SafetensorsBuilder.Tensor {
    .adapter("m.q.lora_A.weight", shape, values)
  }
  private func b(_ shape: [Int], _ values: [Float]) -> SafetensorsBuilder.Tensor {
    .adapter("m.q.lora_B.weight", shape, values)
  }

  /// B of PEFT is `[outputs, rank, experts]`, that of the older Unsloth `[outputs, experts, rank]`.
  @Test(arguments: ExpertLayout.allCases)
  func experts(_ layout: ExpertLayout) throws {
    let shape = LowRankFactors.Shape(experts: 3, rank: 2, inputs: 4, outputs: 5)
    let stored = (0..<30).map(Float.init)
    let term = try term(a([6, 4], wholeNumbers(24, seed: 3)), b([5, 6], stored), shape, layout: layout)
    let grouped = term.grouped(try term.stored().b)
    for expert in 0..<3 {
      for output in 0..<5 {
        for k in 0..<2 {
          let place = layout == .peft ? output * 6 + k * 3 + expert : output * 6 + expert * 2 + k
          #expect(grouped[(expert * 5 + output) * 2 + k] == stored[place])
        }
      }
    }
  }

  /// Four inputs in two groups: each column stands for two inputs, times 4 / 2².
  @Test func groups() throws {
    let shape = LowRankFactors.Shape(rank: 2, inputs: 6, outputs: 1)
    let term = try term(a([2, 2], [1, 2, 3, 4]), b([1, 2], [1, 1]), shape) {
      $0.set("use_qalora", "true")
      $0.set("qalora_group_size", "3")
    }
    let factor: Float = 6.0 / 9
    #expect(try term.stored().a == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4].map { $0 * factor })
    #expect(try term.stored().b == [1, 1])
  }

  @Test func blocksOfA() throws {
    let shape = LowRankFactors.Shape(rank: 4, inputs: 6, outputs: 1)
    let term = try term(a([4, 3], (1...12).map(Float.init)), b([1, 4], [1, 1, 1, 1]), shape) {
      $0.set("use_bdlora", "{\"nblocks\": 2, \"target_modules_bd_a\": [\"q\"]}")
    }
    #expect(
      try term.stored().a == [
        1, 2, 3, 0, 0, 0,
        4, 5, 6, 0, 0, 0,
        0, 0, 0, 7, 8, 9,
        0, 0, 0, 10, 11, 12,
      ])
  }

  @Test func blocksOfB() throws {
    let shape = LowRankFactors.Shape(rank: 2, inputs: 1, outputs: 4)
    let term = try term(a([2, 1], [1, 1]), b([4, 1], [1, 2, 3, 4]), shape) {
      $0.set("use_bdlora", "{\"nblocks\": 2, \"target_modules_bd_b\": [\"q\"]}")
    }
    #expect(try term.stored().b == [1, 0, 2, 0, 0, 3, 0, 4])
  }

  @Test(arguments: ["F32", "F16", "BF16"])
  func types(_ type: String) throws {
    let values: [Float] = [0.5, -1, 2, 0]
    let term = try term(
      .adapter("m.q.lora_A.weight", [1, 4], values, as: type), .adapter("m.q.lora_B.weight", [1, 1], [3], as: type),
      .init(rank: 1, inputs: 4, outputs: 1))
    #expect(try term.stored().a == values && term.stored().b == [3])
  }

  @Test(arguments: [Float.nan, .infinity, -.infinity])
  func notFinite(_ value: Float) throws {
    let term = try term(a([1, 4], [0, 0, value, 0]), b([1, 1], [1]), .init(rank: 1, inputs: 4, outputs: 1))
    let failure = #expect(throws: Failure.self) { try term.stored() }
    #expect(failure?.tensor == "base_model.model.m.q.lora_A.weight")
    #expect(failure?.message == "element 2 is \(value), an adapter to be merged must be finite")
  }
}
