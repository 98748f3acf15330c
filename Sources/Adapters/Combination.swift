import Bytes

/// How several adapters become one.
public enum Combination: String, Sendable, CaseIterable {
  /// The deltas are added.
  case sum
  /// Keeps the largest values of A and of B, then averages those that agree in sign with the majority.
  case ties
  /// As `ties`, with values dropped at random and the rest enlarged.
  case dareTies = "dare_ties"
  /// As a weighted sum of A and of B, with values dropped at random and the rest enlarged.
  case dareLinear = "dare_linear"
  /// As a weighted sum of the largest values of A and of B.
  case magnitudePrune = "magnitude_prune"
}

/// The combinations that work on the factors: those of PEFT's `add_weighted_adapter`, which treats A and B
/// each as a task vector, weighted by the square root of weight × scale.
struct FactorCombination: Sendable {
  let kind: Combination
  /// Fraction of values that is kept, from 0 to 1.
  let density: Double
  let seed: UInt64

  /// - Parameters:
  ///   - terms: one for each adapter.
  ///   - id: tells modules apart, so that no two drop the same positions.
  /// - Returns: A and B in the layout of the files, with scale 1.
  func combined(_ terms: [FactorTerm], id: Int) throws(Failure) -> (a: [Float], b: [Float]) {
    var allA: [[Float]] = []
    var allB: [[Float]] = []
    var weightsA: [Float] = []
    var weightsB: [Float] = []
    for (position, term) in terms.enumerated() {
      var (a, b) = try term.stored()
      prune(&a, stream: UInt64(id) << 32 | UInt64(position) << 1)
      prune(&b, stream: UInt64(id) << 32 | UInt64(position) << 1 | 1)
      allA.append(a)
      allB.append(b)
      let root = Float(term.scale.magnitude.squareRoot())
      // A negative weight shows on one side only, or the two signs would cancel.
      weightsA.append(term.scale < 0 ? -root : root)
      weightsB.append(root)
    }
    return (mixed(allA, weightsA), mixed(allB, weightsB))
  }

  private func prune(_ values: inout [Float], stream: UInt64) {
    guard density < 1 else { return }
    switch kind {
    case .sum: break
    case .ties, .magnitudePrune: keepLargest(&values)
    case .dareTies, .dareLinear:
      var random = SplitMix(state: seed &* 0x9E37_79B9_7F4A_7C15 &+ stream)
      let keep = Float(density)
      for index in values.indices {
        // 53 bits in [0, 1).
        let drawn = Double(random.next() >> 11) * 0x1p-53
        values[index] = drawn < density ? values[index] / keep : 0
      }
    }
  }

  /// Among equals, those that come first are kept.
  private func keepLargest(_ values: inout [Float]) {
    let kept = Int(density * Double(values.count))
    guard kept > 0 else {
      values = Array(repeating: 0, count: values.count)
      return
    }
    let sorted = values.map(\.magnitude).sorted(by: >)
    let threshold = sorted[kept - 1]
    var equals = kept - sorted.prefix(kept).count { $0 > threshold }
    for index in values.indices {
      let magnitude = values[index].magnitude
      if magnitude > threshold { continue }
      if magnitude == threshold, equals > 0 { equals -= 1 } else { values[index] = 0 }
    }
  }

  private func mixed(_ tasks: [[Float]], _ weights: [Float]) -> [Float] {
    let count = tasks[0].count
    var result = [Float](repeating: 0, count: count)
    let elects = kind == .ties || kind == .dareTies
    for index in 0..<count {
      if !elects {
        for (task, weight) in zip(tasks, weights) { result[index] += task[index] * weight }
        continue
      }
      var total: Float = 0
      for task in tasks { total += task[index] }
      let isPositive = total >= 0
      var sum: Float = 0
      var agreeing: Float = 0
      for (task, weight) in zip(tasks, weights) {
        let value = task[index]
        // Zero agrees with neither sign.
        guard isPositive ? value > 0 : value < 0 else { continue }
        sum += value * weight
        agreeing += 1
      }
      result[index] = sum / max(agreeing, 1)
    }
    return result
  }
}
