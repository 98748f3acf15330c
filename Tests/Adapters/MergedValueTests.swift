import Bytes
import Quantization
import TestSupport
import Testing

@testable import Adapters

/// Merged weights, computed by hand.
@Suite struct MergedValueTests {
  private static let weight = "model.q.weight"

  /// 2 × 3.
  private static let base = SafetensorsBuilder.Tensor.of(weight, [2, 3], [1, 2, 3, 4, 5, 6])

  private func adapter(
    _ a: [Float], _ b: [Float], rank: Int = 1, alpha: Double = 2, _ more: SafetensorsBuilder.Tensor...
  ) -> AdapterBuilder {
    AdapterBuilder(
      [
        .adapter("model.q.lora_A.weight", [rank, a.count / rank], a),
        .adapter("model.q.lora_B.weight", [b.count / rank, rank], b),
      ] + more, rank: rank, alpha: alpha)
  }

  @Test func linear() throws {
    let merged = try Merging([Self.base]).merged(adapter([1, 0, -1], [10, 20]))
    #expect(merged[Self.weight] == [21, 2, -17, 44, 5, -34])
    #expect(merged.plan.changes.map(\.scale) == [2])
    let change = try #require(merged.plan.source.relativeChange(of: 0))
    // Read twice; √(2·20² + 2·40²) / √91.
    #expect(abs(change - (4000.0 / 91).squareRoot()) < 1e-6)
  }

  @Test func rankTwo() throws {
    let merged = try Merging([Self.base]).merged(adapter([1, 0, 0, 0, 1, 0], [1, 2, 3, 4], rank: 2, alpha: 1))
    #expect(merged[Self.weight] == [1.5, 3, 3, 5.5, 7, 6])
  }

  @Test func rankStabilized() throws {
    var builder = adapter([1, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0], rank: 4, alpha: 3)
    builder.set("use_rslora", "true")
    let merged = try Merging([Self.base]).merged(builder)
    // 3 / √4 · 4.
    #expect(merged[Self.weight] == [7, 2, 3, 4, 5, 6])
  }

  /// The weight of a `Conv1D` lies `[inputs, outputs]`: here three inputs, two outputs.
  @Test func transposed() throws {
    var merging = try Merging([.of(Self.weight, [3, 2], [1, 2, 3, 4, 5, 6])])
    merging.entries[Self.weight] = .init(parameter: Self.weight, isTransposed: true)
    #expect(try merging.merged(adapter([1, 0, -1], [10, 20]))[Self.weight] == [21, 42, 3, 4, -15, -34])
  }

  /// With as many inputs as outputs only the model's class, else `fan_in_fan_out`, can tell.
  @Test(arguments: [(true, false, true), (false, false, false), (nil, false, false), (nil, true, true)])
  func square(_ known: Bool?, _ stated: Bool, _ isTransposed: Bool) throws {
    var merging = try Merging([.of(Self.weight, [2, 2], [0, 0, 0, 0])])
    merging.entries[Self.weight] = .init(parameter: Self.weight, isTransposed: known)
    var builder = adapter([1, 2], [10, 20], alpha: 1)
    if stated { builder.set("fan_in_fan_out", "true") }
    #expect(
      try merging.merged(builder)[Self.weight] == (isTransposed ? [10, 20, 20, 40] : [10, 20, 20, 40].transposed))
    builder = adapter([1, 2], [10, 0], alpha: 1)
    if stated { builder.set("fan_in_fan_out", "true") }
    #expect(try merging.merged(builder)[Self.weight] == (isTransposed ? [10, 0, 20, 0] : [10, 20, 0, 0]))
  }

  @Test func convolution() throws {
    let merged = try Merging([.of(Self.weight, [2, 3, 1, 2], [Float](repeating: 0, count: 12))]).merged(
      AdapterBuilder(
        [
          .adapter("model.q.lora_A.weight", [1, 3, 1, 2], [1, 2, 3, 4, 5, 6]),
          .adapter("model.q.lora_B.weight", [2, 1, 1, 1], [1, 10]),
        ], rank: 1, alpha: 1))
    #expect(merged[Self.weight] == [1, 2, 3, 4, 5, 6, 10, 20, 30, 40, 50, 60])
  }

  // MARK: - Bias

  @Test func biasOfB() throws {
    let bias = SafetensorsBuilder.Tensor.of("model.q.bias", [2], [1, 2])
    var builder = adapter([0, 0, 0], [0, 0], alpha: 4, .adapter("model.q.lora_B.bias", [2], [10, 20]))
    builder.set("lora_bias", "true")
    let merged = try Merging([Self.base, bias]).merged(builder)
    // PEFT scales it too; bnb.py forgets to.
    #expect(merged["model.q.bias"] == [41, 82] && merged[Self.weight] == [1, 2, 3, 4, 5, 6])
  }

  @Test(arguments: ["model.q.bias", "model.q.base_layer.bias", "model.q.modules_to_save.default.bias"])
  func replacedBias(_ key: String) throws {
    let bias = SafetensorsBuilder.Tensor.of("model.q.bias", [2], [1, 2])
    let merged = try Merging([Self.base, bias]).merged(adapter([0, 0, 0], [0, 0], .adapter(key, [2], [10, 20])))
    #expect(merged["model.q.bias"] == [10, 20])
  }

  // MARK: - DoRA

  /// Rows [3, 4] and [0, 5] are made 10 and 1 long.
  @Test func magnitudes() throws {
    var builder = AdapterBuilder(
      [
        .adapter("model.q.lora_A.weight", [1, 2], [0, 1]), .adapter("model.q.lora_B.weight", [2, 1], [2, 2]),
        .adapter("model.q.lora_magnitude_vector", [2], [10, 1]),
      ], rank: 1, alpha: 2)
    builder.set("use_dora", "true")
    let base = SafetensorsBuilder.Tensor.of(Self.weight, [2, 2], [3, 0, 0, 1])
    #expect(try Merging([base]).merged(builder)[Self.weight] == [6, 8, 0, 1])
    // Half of the change.
    var merging = try Merging([base])
    merging.settings.weights = [0.5]
    #expect(try merging.merged(builder)[Self.weight] == [4.5, 4, 0, 1])
  }

  /// Of a `Conv1D` and of an embedding the outputs are columns: [3, 4] and [0, 5].
  @Test(arguments: [true, false])
  func magnitudesOfColumns(_ isEmbedding: Bool) throws {
    let weight = isEmbedding ? "model.embed_tokens.weight" : Self.weight
    var merging = try Merging([.of(weight, [2, 2], [3, 0, 0, 1])])
    merging.entries[weight] = .init(parameter: weight, isTransposed: !isEmbedding)
    let module = weight.replacing(".weight", with: "")
    let (a, b) = isEmbedding ? ("lora_embedding_A", "lora_embedding_B") : ("lora_A.weight", "lora_B.weight")
    var builder = AdapterBuilder(
      [
        .adapter("\(module).\(a)", [1, 2], [0, 1]), .adapter("\(module).\(b)", [2, 1], [4, 4]),
        .adapter("\(module).lora_magnitude_vector", [2], [10, 1]),
      ], rank: 1, alpha: 1)
    builder.set("use_dora", "true")
    #expect(try merging.merged(builder)[weight] == [6, 0, 8, 1])
  }

  /// The norm is that of the unmerged base, whatever other adapters add.
  @Test func magnitudesAmongOthers() throws {
    var dora = AdapterBuilder(
      [
        .adapter("model.q.lora_A.weight", [1, 2], [0, 1]), .adapter("model.q.lora_B.weight", [2, 1], [4, 4]),
        .adapter("model.q.lora_magnitude_vector", [2], [10, 1]),
      ], rank: 1, alpha: 1)
    dora.set("use_dora", "true")
    let plain = adapter([100, 200], [1, 10], alpha: 1)
    let base = SafetensorsBuilder.Tensor.of(Self.weight, [2, 2], [3, 0, 0, 1])
    for order in [[dora, plain], [plain, dora]] {
      let merged = try Merged(Merging([base]).plan(order))
      #expect(merged[Self.weight] == [106, 208, 1000, 2001])
    }
  }

  // MARK: - Rounding

  /// In BF16 next to 1 the step is 1/128: 1 + 1/64 + 1/512 + … is another number when the delta is rounded first.
  @Test(arguments: MergeSettings.Rounding.allCases, ["model.q.weight", "model.embed_tokens.weight"])
  func rounding(_ rounding: MergeSettings.Rounding, _ weight: String) throws {
    let delta: Float = 1.0 / 256 + 1.0 / 131072
    var merging = try Merging([.of(weight, [1, 1], [1], as: "BF16")])
    merging.settings.rounding = rounding
    let isEmbedding = weight.contains("embed")
    let module = weight.replacing(".weight", with: "")
    let names = isEmbedding ? ["lora_embedding_A", "lora_embedding_B"] : ["lora_A.weight", "lora_B.weight"]
    let builder = AdapterBuilder(
      [.adapter("\(module).\(names[0])", [1, 1], [1]), .adapter("\(module).\(names[1])", [1, 1], [delta])], rank: 1,
      alpha: 1)
    // Rounded first, the delta is 1/256, and the sum a tie that goes to the even 1.
    let isRoundedFirst = rounding == .peftSafe || rounding == .peft && isEmbedding
    #expect(try merging.merged(builder)[weight] == [isRoundedFirst ? 1 : 1 + 1.0 / 128])
  }

  @Test(arguments: [FloatType.f32, .f16, .bf16])
  func otherType(_ type: FloatType) throws {
    var merging = try Merging([Self.base, .of("model.norm.weight", [1], [0.5], as: "BF16")])
    merging.type = type
    let merged = try merging.merged(adapter([1, 0, -1], [10, 20]))
    #expect(merged.plan.source.tensors.allSatisfy { $0.type == type.element })
    #expect(merged[Self.weight] == [21, 2, -17, 44, 5, -34] && merged["model.norm.weight"] == [0.5])
  }

  // MARK: - Several adapters

  @Test func sum() throws {
    var merging = try Merging([Self.base])
    merging.settings.weights = [0.5, -1]
    let plan = try merging.plan([adapter([1, 0, 0], [10, 20]), adapter([0, 1, 0], [1, 1])])
    #expect(try Merged(plan)[Self.weight] == [11, 0, 3, 24, 3, 6])
    #expect(plan.changes.map(\.adapter) == ["adapter0", "adapter1"] && plan.changes.map(\.scale) == [1, -2])
  }

  @Test func sumOfDifferentRanks() throws {
    let plan = try Merging([Self.base]).plan([
      adapter([1, 0, 0], [10, 20]), adapter([1, 0, 0, 0, 1, 0], [1, 0, 0, 1], rank: 2, alpha: 2),
    ])
    #expect(try Merged(plan)[Self.weight] == [22, 2, 3, 44, 6, 6])
  }

  /// 2²⁴ + 1 − 2²⁴ is 1 or 0, as it is added up: that of every order of the adapters must be the same, whether they add
  /// to a weight, to a bias, or give the outputs lengths of their own.
  @Test func sumInAnyOrder() throws {
    let bias = SafetensorsBuilder.Tensor.of("model.q.bias", [2], [0, 0])
    let zeros = SafetensorsBuilder.Tensor.of(Self.weight, [2, 3], [0, 0, 0, 0, 0, 0])
    let builders = [Float(1 << 24), 1, -Float(1 << 24)].map { value in
      let added = SafetensorsBuilder.Tensor.adapter("model.q.lora_B.bias", [2], [value, value])
      var builder = adapter([1, 1, 1], [value, value], alpha: 1, added)
      builder.set("lora_bias", "true")
      return builder
    }
    try expectOneResult([zeros, bias], builders)
    let directed = [Float(1 << 24), 3, 1].enumerated().map { number, length in
      var builder = AdapterBuilder(
        [
          .adapter("model.q.lora_A.weight", [1, 3], [0, 1, Float(number)]),
          .adapter("model.q.lora_B.weight", [2, 1], [0.1, 0.3]),
          .adapter("model.q.lora_magnitude_vector", [2], [length, length / 3]),
        ], rank: 1, alpha: 1)
      builder.set("use_dora", "true")
      return builder
    }
    try expectOneResult([Self.base], directed)
    // The same factors, of which only the weights tell one from the other.
    var weighted = try Merging([Self.base])
    let same = [adapter([0.1, 0.7, 0.3], [0.9, 0.2], alpha: 1), adapter([0.1, 0.7, 0.3], [0.9, 0.2], alpha: 1)]
    weighted.settings.weights = [0.3, 1e7]
    let first = try Merged(weighted.plan(same))[Self.weight]
    weighted.settings.weights.reverse()
    #expect(try Merged(weighted.plan(same))[Self.weight] == first)
  }

  private func expectOneResult(_ base: [SafetensorsBuilder.Tensor], _ builders: [AdapterBuilder]) throws {
    var results: Set<[Float]> = []
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
      let merged = try Merged(Merging(base).plan(order.map { builders[$0] }))
      results.insert(base.flatMap { merged[$0.name] ?? [] })
    }
    #expect(results.count == 1, "\(results)")
  }

  @Test(arguments: [Combination.ties, .dareTies, .dareLinear, .magnitudePrune])
  func combinationNeedsEqualRanks(_ kind: Combination) throws {
    var merging = try Merging([Self.base])
    merging.settings.combination = kind
    let one = adapter([1, 0, 0], [10, 20])
    let failure = #expect(throws: Failure.self) {
      try merging.plan([one, adapter([1, 0, 0, 0, 1, 0], [1, 0, 0, 1], rank: 2)])
    }
    #expect(failure?.code == .malformed && failure?.message.contains("needs equal ranks") == true)
    merging.settings.density = 1
    let merged = try Merged(merging.plan([one, adapter([0, 1, 0], [1, 1])]))
    #expect(merged.plan.changes.count == 2)
    // A and B are combined each by itself: √2 on both sides of both.
    let a: [Float] = [1, 1, 0]
    let b: [Float] = kind == .ties || kind == .dareTies ? [5.5, 10.5] : [11, 21]
    let base: [Float] = [1, 2, 3, 4, 5, 6]
    let values = try #require(merged[Self.weight])
    for at in 0..<6 { #expect(abs(values[at] - base[at] - 2 * b[at / 3] * a[at % 3]) < 1e-4, "\(at)") }
  }
}

extension [Float] {
  /// Of a 2 × 2 matrix.
  fileprivate var transposed: [Float] { [self[0], self[2], self[1], self[3]] }
}
