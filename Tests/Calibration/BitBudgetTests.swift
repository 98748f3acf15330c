import Calibration
import Testing

/// Which things are stored in more bytes, against every other choice.
@Suite struct BitBudgetTests {
  private typealias Way = BitBudget.Way

  /// The least loss of all choices that fit.
  private func exact(_ things: [[Way]], budget: Int) -> Double {
    guard let first = things.first else { return 0 }
    let rest = Array(things.dropFirst())
    return first.compactMap { way in
      let left = budget - (way.bytes - first[0].bytes)
      return left < 0 ? nil : way.loss + exact(rest, budget: left)
    }.min() ?? .infinity
  }

  private func loss(_ things: [[Way]], _ chosen: [Int]) -> Double {
    zip(things, chosen).reduce(0) { $0 + $1.0[$1.1].loss }
  }

  private func bytes(_ things: [[Way]], _ chosen: [Int]) -> Int {
    zip(things, chosen).reduce(0) { $0 + $1.0[$1.1].bytes - $1.0[0].bytes }
  }

  /// The greedy choice misses at most what the largest step that did not fit would have saved.
  @Test func nearExact() {
    var generator = SystemRandomNumberGenerator()
    for _ in 0..<40 {
      let things = (0..<7).map { _ in
        var (size, loss) = (Int.random(in: 1...4, using: &generator), Double.random(in: 1...100, using: &generator))
        return (0..<3).map { _ in
          let way = Way(bytes: size, loss: loss)
          size += Int.random(in: 1...6, using: &generator)
          loss *= Double.random(in: 0...1, using: &generator)
          return way
        }
      }
      let budget = Int.random(in: 0...60, using: &generator)
      let chosen = BitBudget.choose(things, budget: budget)
      #expect(bytes(things, chosen) <= budget)
      let largest = things.map { $0[0].loss - $0[2].loss }.max() ?? 0
      #expect(loss(things, chosen) - exact(things, budget: budget) <= largest + 1e-9)
    }
  }

  /// One byte, or all: the ends are exact.
  @Test func ends() {
    let things = [[Way(bytes: 2, loss: 4), Way(bytes: 8, loss: 0)], [Way(bytes: 2, loss: 5), Way(bytes: 8, loss: 1)]]
    #expect(BitBudget.choose(things, budget: 0) == [0, 0])
    #expect(BitBudget.choose(things, budget: 5) == [0, 0])
    #expect(BitBudget.choose(things, budget: 6) == [1, 0])
    #expect(BitBudget.choose(things, budget: 12) == [1, 1])
    #expect(BitBudget.choose([], budget: 9) == [])
  }

  /// A way that lies above the line between its neighbours is passed over, and one that loses more is never taken.
  @Test func hull() {
    let things = [
      [Way(bytes: 0, loss: 100), Way(bytes: 10, loss: 95), Way(bytes: 20, loss: 10), Way(bytes: 30, loss: 20)]
    ]
    #expect(BitBudget.choose(things, budget: 100) == [2])
    #expect(BitBudget.choose(things, budget: 19) == [0])
  }
}
