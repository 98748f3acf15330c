/// The best use of a number of bytes for things that can each be stored in several ways.
package enum BitBudget {
  /// One way to store a thing.
  package struct Way: Sendable, Equatable {
    package var bytes: Int
    package var loss: Double

    package init(bytes: Int, loss: Double) {
      self.bytes = bytes
      self.loss = loss
    }
  }

  /// One thing more in the next of the ways that are worth it.
  private struct Step {
    var thing: Int
    var way: Int
    var bytes: Int
    var gain: Double
    var place: Int

    var slope: Double { gain / Double(bytes) }
  }

  /// Steps along each thing's lower hull of bytes and loss are taken where a byte saves most, as long as they fit: the
  /// Lagrangian's optimum, but for what the last step would have taken of the budget.
  ///
  /// - Parameters:
  ///   - things: for each its ways; the first is the one it has for nothing, the others, in any order, take more bytes.
  ///   - budget: bytes besides those of the first ways.
  /// - Returns: for each thing the position of its way.
  package static func choose(_ things: [[Way]], budget: Int) -> [Int] {
    var chosen = things.map { _ in 0 }
    var steps: [Step] = []
    for (thing, ways) in things.enumerated() { steps += hull(ways, of: thing) }
    steps.sort { ($1.slope, $0.thing, $0.place) < ($0.slope, $1.thing, $1.place) }
    var left = budget
    var stopped: Set<Int> = []
    for step in steps where !stopped.contains(step.thing) {
      if step.bytes > left {
        // What follows on this hull begins where this step ends.
        stopped.insert(step.thing)
        continue
      }
      left -= step.bytes
      chosen[step.thing] = step.way
    }
    return chosen
  }

  /// The steps from the first way on, each less worth than the one before.
  private static func hull(_ ways: [Way], of thing: Int) -> [Step] {
    var steps: [Step] = []
    var current = 0
    while true {
      var best: Step?
      for (way, candidate) in ways.enumerated() {
        let bytes = candidate.bytes - ways[current].bytes
        let gain = ways[current].loss - candidate.loss
        guard bytes > 0, gain > 0 else { continue }
        let step = Step(thing: thing, way: way, bytes: bytes, gain: gain, place: steps.count)
        if best.map({ (step.slope, step.bytes) > ($0.slope, $0.bytes) }) ?? true { best = step }
      }
      guard let best else { return steps }
      steps.append(best)
      current = best.way
    }
  }
}
