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
        let part = row * length..<(row + 1) * length
        var sums = total.part(part)
        Self.add(weight, factors.span, new.extracting(part), old.extracting(part), to: &sums)
      }
      return
    }
    let lengths = try magnitude.adapter.floats(of: magnitude.tensor)
    for (place, row) in rows.enumerated() {
      let part = place * length..<(place + 1) * length
      let norm = Self.squares(new.extracting(part)).squareRoot()
      let factor = lengths[delta.place.rowOffset + row] / Float(norm)
      var sums = total.part(part)
      Self.add(weight, factor, new.extracting(part), old.extracting(part), to: &sums)
    }
  }

  // That all are of one length is told before the loops, which are vectors then.

  private static func add(
    _ weight: Float, _ factor: Float, _ new: Span<Float>, _ old: Span<Float>, to total: inout MutableSpan<Float>
  ) {
    precondition(new.count == old.count && total.count == old.count)
    for at in 0..<old.count { total[at] += weight * (factor * new[at] - old[at]) }
  }

  private static func add(
    _ weight: Float, _ factors: Span<Float>, _ new: Span<Float>, _ old: Span<Float>, to total: inout MutableSpan<Float>
  ) {
    precondition(factors.count == old.count && new.count == old.count && total.count == old.count)
    for at in 0..<old.count { total[at] += weight * (factors[at] * new[at] - old[at]) }
  }

  private static func addSquares(of values: Span<Float>, to squares: inout MutableSpan<Double>) {
    precondition(squares.count == values.count)
    for at in 0..<values.count { squares[at] += Double(values[at]) * Double(values[at]) }
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
    precondition(new.count == old.count)
    for at in 0..<old.count { new[at] += old[at] }
  }

  /// The sum of squares in double precision; value i goes to partial sum i % 8, so that the sums can be vectors.
  private static func squares(_ values: Span<Float>) -> Double {
    var sums = SIMD8<Double>()
    let whole = values.count & ~7
    for at in stride(from: 0, to: whole, by: 8) {
      let part = values.extracting(at..<at + 8)
      let wide = SIMD8<Double>(SIMD8<Float>(part[0], part[1], part[2], part[3], part[4], part[5], part[6], part[7]))
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
        var sums = squares.mutableSpan
        Self.addSquares(of: new.extracting(place * length..<(place + 1) * length), to: &sums)
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
