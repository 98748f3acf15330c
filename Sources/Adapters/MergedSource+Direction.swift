import Bytes
import Synchronization
import Tensors

/// DoRA: the direction of `W + Δ`, given a length of its own for each output.
extension MergedSource {
  /// Adds `w · (m / ‖W + Δ‖ · (W + Δ) − W)`: the norm is that of the unmerged base with this delta alone, over
  /// the inputs of each output.
  func addDirection(
    _ index: Int, _ position: Int, _ delta: LowRankDelta, _ magnitude: LowRankDelta.Magnitude, _ item: MergedTensor,
    _ rows: Range<Int>, to total: inout MutableSpan<Float>
  ) throws(Failure) {
    let length = item.rowLength
    let direction = try directed(delta, item, rows)
    let (old, new) = (direction.values.floats, direction.sum.floats)
    let weight = magnitude.weight
    if delta.place.isTransposed {
      let factors = try columns.factors(of: index, position) { () throws(Failure) in
        try columnFactors(delta, magnitude, item)
      }
      for row in 0..<rows.count {
        let start = row * length
        for column in 0..<length {
          let at = start + column
          total[at] += weight * (factors[column] * new[at] - old[at])
        }
      }
      return
    }
    let lengths = try magnitude.adapter.floats(of: magnitude.tensor)
    for (place, row) in rows.enumerated() {
      let start = place * length
      let norm = Self.squares(new.extracting(start..<start + length)).squareRoot()
      let factor = lengths[delta.place.rowOffset + row] / Float(norm)
      for at in start..<start + length { total[at] += weight * (factor * new[at] - old[at]) }
    }
  }

  /// W and W + Δ of some rows, in 32 bits.
  private struct Direction: ~Copyable {
    var values: ScratchBuffer
    var sum: ScratchBuffer
  }

  private func directed(
    _ delta: LowRankDelta, _ item: MergedTensor, _ rows: Range<Int>
  ) throws(Failure) -> Direction {
    let length = item.rowLength
    let (source, position) = origin(of: item)
    let values = try floats(source, position, rows.lowerBound * length..<rows.upperBound * length)
    var sum = ScratchBuffer(byteCount: 4 * rows.count * length)
    let factors = try cache.factors(delta.factors)
    Self.add(values, delta, factors, rows, rowLength: length, into: &sum)
    return Direction(values: values, sum: sum)
  }

  private static func add(
    _ values: borrowing ScratchBuffer, _ delta: LowRankDelta, _ factors: LowRankFactors, _ rows: Range<Int>,
    rowLength: Int,
    into sum: inout ScratchBuffer
  ) {
    var new = sum.mutableFloats
    delta.multiply(factors, rows: rows, rowLength: rowLength, adding: false, into: &new)
    let old = values.floats
    for at in old.indices { new[at] += old[at] }
  }

  /// The sum of squares in double precision; value i goes to partial sum i % 8, so that the sums can be vectors.
  private static func squares(_ values: Span<Float>) -> Double {
    var sums = SIMD8<Double>()
    let whole = values.count & ~7
    for at in stride(from: 0, to: whole, by: 8) {
      let wide = SIMD8<Double>(
        SIMD8<Float>(
          values[at], values[at + 1], values[at + 2], values[at + 3], values[at + 4], values[at + 5], values[at + 6],
          values[at + 7]))
      sums += wide * wide
    }
    var total = sums.sum()
    for at in whole..<values.count {
      let value = Double(values[at])
      total += value * value
    }
    return total
  }

  /// m / ‖column‖ of a tensor whose outputs are its columns: one pass over all of it.
  private func columnFactors(
    _ delta: LowRankDelta, _ magnitude: LowRankDelta.Magnitude, _ item: MergedTensor
  ) throws(Failure) -> [Float] {
    let length = item.rowLength
    let count = item.info.shape.first ?? 0
    var squares = [Double](repeating: 0, count: length)
    let step = max(1, (1 << 18) / max(1, length))
    var row = 0
    while row < count {
      try Interruption.check()
      let rows = row..<min(row + step, count)
      let direction = try directed(delta, item, rows)
      let new = direction.sum.floats
      for place in 0..<rows.count {
        let start = place * length
        for column in 0..<length {
          let value = Double(new[start + column])
          squares[column] += value * value
        }
      }
      row = rows.upperBound
    }
    let lengths = try magnitude.adapter.floats(of: magnitude.tensor)
    return zip(lengths, squares).map { $0 / Float($1.squareRoot()) }
  }
}

/// m / ‖column‖ of tensors whose outputs are columns, each computed once, by whoever needs it first.
final class ColumnFactors: Sendable {
  private let known = Mutex<[[Int]: [Float]]>([:])

  func factors(
    of tensor: Int, _ delta: Int, _ compute: () throws(Failure) -> [Float]
  ) throws(Failure) -> [Float] {
    try known.withLock { (known) throws(Failure) in
      if let found = known[[tensor, delta]] { return found }
      // One tensor at a time is under way, or two: older ones are not asked for again.
      if known.count > 8 { known.removeAll() }
      let computed = try compute()
      known[[tensor, delta]] = computed
      return computed
    }
  }
}
