package import Bytes
import Quantization
package import Tensors

/// A matrix of a checkpoint, whose values are read a piece at a time.
package struct MatrixSide: Sendable {
  package let info: TensorInfo
  /// The checkpoint's path, for failures.
  package let path: String
  /// Reads what lies from a byte on.
  let read: @Sendable (_ offset: Int, _ destination: inout MutableRawSpan) throws(Failure) -> Void

  package init(
    _ info: TensorInfo, path: String,
    read: @escaping @Sendable (_ offset: Int, _ destination: inout MutableRawSpan) throws(Failure) -> Void
  ) {
    self.info = info
    self.path = path
    self.read = read
  }
}

/// Reads how two matrices of one shape differ: to - from, in 32 bits.
package struct DifferenceReader: Sendable {
  private let from: MatrixSide
  private let to: MatrixSide
  private let jobs: Int

  /// Elements read at a time: three pieces of 32 bits fit a core's private cache.
  private static let pieceSize = 1 << 16

  package init(from: MatrixSide, to: MatrixSide, jobs: Int) {
    self.from = from
    self.to = to
    self.jobs = jobs
  }

  /// - Returns: the difference as the matrices lie, ‖from‖² and ‖difference‖².
  /// - Throws: `malformed` for a value that is not finite, or too large for 32 bits.
  package func read() throws(Failure) -> (matrix: FloatMatrix, base: Double, change: Double) {
    guard from.info.shape.count == 2, from.info.shape == to.info.shape else {
      throw Failure(.internal, "no two matrices of one shape", tensor: from.info.name.string)
    }
    let matrix: FloatMatrix
    do throws(Failure) {
      matrix = try FloatMatrix(rows: from.info.shape[0], columns: from.info.shape[1])
    } catch { throw error.located(file: from.path, tensor: from.info.name.string) }
    let blocks = Blocks(matrix.count, of: Self.pieceSize, jobs: jobs)
    let sums = BlockResults<ChangeSums>(blocks.number)
    try blocks.perform { (block, range) throws(Failure) in
      sums.set(block, try subtract(range, into: matrix))
    }
    var total = ChangeSums()
    for sum in sums.all { total.add(sum) }
    return (matrix, total.values, total.changes)
  }

  private func subtract(_ range: Range<Int>, into matrix: FloatMatrix) throws(Failure) -> ChangeSums {
    let base = try from.values(range)
    let tuned = try to.values(range)
    let (before, after) = (base.floats, tuned.floats)
    var difference = matrix.part(range)
    // That all are of one length is told before the loop, which is vectors then.
    precondition(before.count == range.count && after.count == range.count && difference.count == range.count)
    for index in 0..<range.count { difference[index] = after[index] - before[index] }
    var baseSums = ValueStatistics()
    baseSums.add(base.bytes, as: .f32)
    var sums = ValueStatistics()
    sums.add(difference.span.rawBytes, as: .f32)
    if sums.finite != sums.count { throw refusal(range, before, after) }
    return ChangeSums(values: baseSums.sumOfSquares, changes: sums.sumOfSquares)
  }

  /// Why a difference is not finite.
  private func refusal(_ range: Range<Int>, _ base: Span<Float>, _ tuned: Span<Float>) -> Failure {
    from.refusal(range, base) ?? to.refusal(range, tuned)
      ?? Failure(
        .malformed, "differs by more than float32 can hold", file: to.path, tensor: to.info.name.string)
  }
}

extension MatrixSide {
  /// Some values, in 32 bits.
  fileprivate func values(_ range: Range<Int>) throws(Failure) -> ScratchBuffer {
    let width = info.type.bitWidth / 8
    var stored = ScratchBuffer(byteCount: range.count * width)
    var room = stored.mutableBytes
    try read(range.lowerBound * width, &room)
    var result = ScratchBuffer(byteCount: range.count * 4)
    var floats = result.mutableBytes
    do throws(Overflow) {
      if let type = FloatType(elementType: info.type) {
        try convert(stored.bytes, from: type, to: .f32, into: &floats)
      } else if info.type == .f64 {
        try narrow(stored.bytes, to: .f32, into: &floats)
      } else {
        throw Overflow(index: 0, value: .nan)
      }
    } catch {
      throw Failure(
        .malformed, "element \(range.lowerBound + error.index) is \(error.value), beyond the range of float32",
        file: path, tensor: info.name.string)
    }
    return result
  }

  fileprivate func refusal(_ range: Range<Int>, _ values: Span<Float>) -> Failure? {
    guard let index = values.indices.first(where: { !values[$0].isFinite }) else { return nil }
    return Failure(
      .malformed, "element \(range.lowerBound + index) is \(values[index]), weights must be finite",
      file: path, tensor: info.name.string)
  }
}
