import Bytes

/// Sums in 32 bits depend on the order of their terms, in the last place. So that a merge does not depend on the order
/// in which its adapters are named, terms are added in one that follows from their values alone: of equal terms it
/// does not matter which comes first.
extension MergedSource {
  /// A delta in use.
  struct Term {
    /// In the item's deltas.
    let position: Int
    let delta: LowRankDelta
    let factors: LowRankFactors

    /// - Parameter lengths: DoRA's, empty for what has none.
    fileprivate func precedes(_ other: Term, lengths: [Int: [Float]]) -> Bool {
      let (one, two) = (delta, other.delta)
      if one.scale != two.scale { return one.scale < two.scale }
      let weights = (one.magnitude?.weight ?? 0, two.magnitude?.weight ?? 0)
      if weights.0 != weights.1 { return weights.0 < weights.1 }
      if factors.a != other.factors.a { return factors.a.lexicographicallyPrecedes(other.factors.a) }
      if factors.b != other.factors.b { return factors.b.lexicographicallyPrecedes(other.factors.b) }
      return (lengths[position] ?? []).lexicographicallyPrecedes(lengths[other.position] ?? [])
    }
  }

  func orderedTerms(of item: MergedTensor) throws(Failure) -> [Term] {
    var terms: [Term] = []
    var lengths: [Int: [Float]] = [:]
    for (position, delta) in item.deltas.enumerated() {
      terms.append(Term(position: position, delta: delta, factors: try cache.factors(delta.factors)))
      if item.deltas.count > 1, let magnitude = delta.magnitude {
        lengths[position] = try magnitude.adapter.floats(of: magnitude.tensor)
      }
    }
    return terms.sorted { $0.precedes($1, lengths: lengths) }
  }

  /// The vectors that are added to a bias, by rising scale, then by value.
  func orderedVectors(of item: MergedTensor) throws(Failure) -> [(scale: Float, values: [Float])] {
    var vectors: [(scale: Float, values: [Float])] = []
    for vector in item.vectors { vectors.append((vector.scale, try vector.adapter.floats(of: vector.tensor))) }
    return vectors.sorted {
      $0.scale == $1.scale ? $0.values.lexicographicallyPrecedes($1.values) : $0.scale < $1.scale
    }
  }
}
