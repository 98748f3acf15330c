import Adapters
import Bytes
import Checkpoints
import Comparison
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
    defer {
      extendLifetime(base)
      extendLifetime(tuned)
    }
    let (from, to) = unsafe (base.floats, tuned.floats)
    let difference = unsafe UnsafeMutableBufferPointer(rebasing: matrix.values[range])
    for index in 0..<range.count { unsafe difference[index] = to[index] - from[index] }
    var baseSums = ValueStatistics()
    unsafe baseSums.add(base.bytes, as: .f32)
    var sums = ValueStatistics()
    unsafe sums.add(UnsafeRawBufferPointer(difference), as: .f32)
    if sums.finite != sums.count { throw try refusal(position, range, base, tuned) }
    return ChangeSums(values: baseSums.sumOfSquares, changes: sums.sumOfSquares)
  }

  /// Some values of one side, in 32 bits.
  private func values(_ side: ComparedCheckpoint, _ index: Int, _ range: Range<Int>) throws(Failure) -> ScratchBuffer {
    let info = side.source.tensors[index]
    let width = info.type.bitWidth / 8
    let stored = ScratchBuffer(byteCount: range.count * width)
    let result = ScratchBuffer(byteCount: range.count * 4)
    defer { extendLifetime(stored) }
    try unsafe side.read(index, at: range.lowerBound * width, into: stored.mutableBytes)
    do throws(Overflow) {
      if let type = FloatType(info.type) {
        try unsafe convert(stored.bytes, from: type, to: .f32, into: result.mutableBytes)
      } else if info.type == .f64 {
        try unsafe narrow(stored.bytes, to: .f32, into: result.mutableBytes)
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
    _ position: Int, _ range: Range<Int>, _ base: ScratchBuffer, _ tuned: ScratchBuffer
  ) throws(Failure) -> Failure {
    let (a, b) = pair.infos(position)
    for (side, info, values) in [(pair.a, a, base), (pair.b, b, tuned)] {
      guard let index = unsafe values.floats.firstIndex(where: { !$0.isFinite }) else { continue }
      return unsafe Failure(
        .malformed, "element \(range.lowerBound + index) is \(values.floats[index]), weights must be finite",
        file: side.path, tensor: info.name.string)
    }
    return Failure(
      .malformed, "differs by more than float32 can hold", file: pair.b.path, tensor: b.name.string)
  }
}
