import Adapters
import Bytes
import Checkpoints
import Comparison
import PackedWeights
import Quantization
import Tensors

/// Reads what became of one weight: tuned - base, in 32 bits.
struct DifferenceReader {
  let pair: CheckpointPair
  let jobs: Int

  /// Elements read at a time: three pieces of 32 bits fit a core's private cache.
  private static let pieceSize = 1 << 16

  /// - Returns: the difference as the pair's tensors lie, ‖base‖² and ‖difference‖².
  /// - Throws: `malformed` for a value that is not finite, or too large for 32 bits.
  func read(_ position: Int) throws(Failure) -> (matrix: FloatMatrix, base: Double, change: Double) {
    let (base, tuned) = pair.infos(position)
    guard base.shape.count == 2, base.shape == tuned.shape else {
      throw Failure(.internal, "no two matrices of one shape", tensor: base.name.string)
    }
    let matrix: FloatMatrix
    do throws(Failure) { matrix = try FloatMatrix(rows: base.shape[0], columns: base.shape[1]) } catch {
      throw error.located(file: pair.a.path, tensor: base.name.string)
    }
    let blocks = Blocks(matrix.count, of: Self.pieceSize, jobs: jobs)
    let sums = BlockResults<ChangeSums>(blocks.number)
    try blocks.perform { (block, range) throws(Failure) in
      sums.set(block, try subtract(position, range, into: matrix))
    }
    var total = ChangeSums()
    for sum in sums.all { total.add(sum) }
    return (matrix, total.values, total.changes)
  }

  private func subtract(
    _ position: Int, _ range: Range<Int>, into matrix: FloatMatrix
  ) throws(Failure) -> ChangeSums {
    let (a, b) = pair.common[position]
    let base = try values(pair.a, a, range)
    let tuned = try values(pair.b, b, range)
    let (from, to) = (base.floats, tuned.floats)
    var difference = matrix.part(range)
    // That all are of one length is told before the loop, which is vectors then.
    precondition(from.count == range.count && to.count == range.count && difference.count == range.count)
    for index in 0..<range.count { difference[index] = to[index] - from[index] }
    var baseSums = ValueStatistics()
    baseSums.add(base.bytes, as: .f32)
    var sums = ValueStatistics()
    sums.add(difference.span.rawBytes, as: .f32)
    if sums.finite != sums.count { throw refusal(position, range, from, to) }
    return ChangeSums(values: baseSums.sumOfSquares, changes: sums.sumOfSquares)
  }

  /// Some values of one side, in 32 bits.
  private func values(_ side: ComparedCheckpoint, _ index: Int, _ range: Range<Int>) throws(Failure) -> ScratchBuffer {
    let info = side.source.tensors[index]
    let width = info.type.bitWidth / 8
    var stored = ScratchBuffer(byteCount: range.count * width)
    var room = stored.mutableBytes
    try side.read(index, at: range.lowerBound * width, into: &room)
    var result = ScratchBuffer(byteCount: range.count * 4)
    var floats = result.mutableBytes
    do throws(Overflow) {
      if let type = FloatType(info.type) {
        try convert(stored.bytes, from: type, to: .f32, into: &floats)
      } else if info.type == .f64 {
        try narrow(stored.bytes, to: .f32, into: &floats)
      } else {
        throw Overflow(index: 0, value: .nan)
      }
    } catch {
      throw Failure(
        .malformed, "element \(range.lowerBound + error.index) is \(error.value), beyond the range of float32",
        file: side.path, tensor: info.name.string)
    }
    return result
  }

  /// Why a difference is not finite.
  private func refusal(
    _ position: Int, _ range: Range<Int>, _ base: Span<Float>, _ tuned: Span<Float>
  ) -> Failure {
    let (a, b) = pair.infos(position)
    return refusal(pair.a, a, range, base) ?? refusal(pair.b, b, range, tuned)
      ?? Failure(.malformed, "differs by more than float32 can hold", file: pair.b.path, tensor: b.name.string)
  }

  private func refusal(
    _ side: ComparedCheckpoint, _ info: TensorInfo, _ range: Range<Int>, _ values: Span<Float>
  ) -> Failure? {
    guard let index = values.indices.first(where: { !values[$0].isFinite }) else { return nil }
    return Failure(
      .malformed, "element \(range.lowerBound + index) is \(values[index]), weights must be finite",
      file: side.path, tensor: info.name.string)
  }
}
