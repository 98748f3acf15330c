import TestSupport
import Testing

@testable import Adapters

/// PEFT's `add_weighted_adapter` by hand, on a few values.
@Suite struct FactorCombinationTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  /// One adapter of rank 1 with 4 inputs and 1 output.
  private func term(_ number: Int, _ a: [Float], _ b: [Float], scale: Double) throws -> FactorTerm {
    let builder = AdapterBuilder(
      [.adapter("m.q.lora_A.weight", [1, a.count], a), .adapter("m.q.lora_B.weight", [b.count, 1], b)], rank: 1)
    let adapter = try Adapter(path: builder.write(to: directory, "a\(number)"))
    return FactorTerm(
      adapter: adapter, module: adapter.modules[0], scale: scale,
      shape: .init(rank: 1, inputs: a.count, outputs: b.count), layout: .peft)
  }

  private func combined(
    _ kind: Combination, density: Double = 0.5, seed: UInt64 = 0, id: Int = 0, _ terms: FactorTerm...
  ) throws -> (a: [Float], b: [Float]) {
    try FactorCombination(kind: kind, density: density, seed: seed).combined(terms, id: id)
  }

  @Test func magnitudePrune() throws {
    let one = try term(1, [4, -1, 2, 3], [1, -2], scale: 4)
    let two = try term(2, [1, -5, 0, 2], [3, 1], scale: 9)
    // Half of the values are kept: 4 and 3, -5 and 2; roots of the scales weigh both sides.
    let (a, b) = try combined(.magnitudePrune, one, two)
    #expect(a == [8, -15, 0, 12])
    #expect(b == [9, -4])
    let whole = try combined(.magnitudePrune, density: 1, one, two)
    #expect(whole.a == [11, -17, 4, 12] && whole.b == [11, -1])
    let none = try combined(.magnitudePrune, density: 0, one, two)
    #expect(none.a == [0, 0, 0, 0] && none.b == [0, 0])
  }

  /// Equal magnitudes: those that come first are kept, and no more than asked for.
  @Test func equals() throws {
    let term = try term(1, [1, -1, 1, -1], [2, 2, 2], scale: 1)
    let (a, b) = try combined(.magnitudePrune, term)
    #expect(a == [1, -1, 0, 0] && b == [2, 0, 0])
    #expect(try combined(.magnitudePrune, density: 0.99, term).a == [1, -1, 1, 0])
    #expect(try combined(.magnitudePrune, density: 0.24, term).a == [0, 0, 0, 0])
  }

  @Test func ties() throws {
    let one = try term(1, [4, -1, 2, 1], [1, 1], scale: 4)
    let two = try term(2, [-5, -3, 4, -1], [3, -1], scale: 9)
    // Signs by the sum of the unweighted values: -, -, +, + (0 counts as +); those that agree are averaged.
    let (a, b) = try combined(.ties, density: 1, one, two)
    #expect(a == [-15, -5.5, 8, 2])
    #expect(b == [5.5, 2])
    // Pruned to [4, 0, 2, 0] and [-5, 0, 4, 0].
    #expect(try combined(.ties, one, two).a == [-15, 0, 8, 0])
  }

  @Test func negativeWeight() throws {
    let one = try term(1, [1, 2], [3], scale: -4)
    let (a, b) = try combined(.magnitudePrune, density: 1, one)
    #expect(a == [-2, -4] && b == [6])
  }

  /// What is kept is divided by the density; what is dropped depends on seed, module and place only.
  @Test(arguments: [Combination.dareLinear, .dareTies])
  func dare(_ kind: Combination) throws {
    let one = try term(1, [Float](repeating: 3, count: 4000), [1], scale: 1)
    let (a, _) = try combined(kind, density: 0.25, one)
    #expect(Set(a) == [0, 12])
    let kept = a.count { $0 != 0 }
    #expect((850...1150).contains(kept), "\(kept)")
    #expect(try combined(kind, density: 0.25, one).a == a)
    #expect(try combined(kind, density: 0.25, seed: 1, one).a != a)
    #expect(try combined(kind, density: 0.25, id: 1, one).a != a)
    #expect(try combined(kind, density: 1, one).a == [Float](repeating: 3, count: 4000))
    #expect(try combined(kind, density: 0, one).a == [Float](repeating: 0, count: 4000))
  }

  @Test func dareDropsOtherPlacesInEachAdapter() throws {
    let one = try term(1, [Float](repeating: 1, count: 1000), [1], scale: 1)
    let two = try term(2, [Float](repeating: 1, count: 1000), [1], scale: 1)
    let (a, _) = try combined(.dareLinear, one, two)
    #expect(Set(a) == [0, 2, 4])
  }
}
