import Kernels

/// How far two tensors of one shape, A and B, are apart.
///
/// Values are compared as numbers, whatever type holds them: 0 equals -0, an infinity equals itself, and
/// a NaN equals a NaN with the same bits (those of the wider type).
public struct ValueDifference: Sendable, Equatable {
  /// Pairs of values compared.
  public var count = 0
  /// Pairs whose values are not equal.
  public var differing = 0
  /// The number of `differing` pairs that are no finite distance apart: one of the two is NaN or infinite.
  public var undefined = 0
  /// The largest |B - A| of pairs of finite values.
  public var largest = 0.0
  /// The sum of (B - A)² over pairs of finite values.
  public var sumOfSquares = 0.0
  /// The sum of A² over the same pairs.
  public var referenceSumOfSquares = 0.0

  public init() {}

  /// The largest |B - A|; nil when some pair is no finite distance apart.
  public var largestDistance: Double? { undefined == 0 ? largest : nil }

  /// ‖B - A‖ / ‖A‖, infinite when only A is all zeros; nil when some pair is no finite distance apart or
  /// the squares exceed a double.
  public var relative: Double? {
    guard undefined == 0, sumOfSquares.isFinite, referenceSumOfSquares.isFinite else { return nil }
    if sumOfSquares == 0 { return 0 }
    return sumOfSquares.squareRoot() / referenceSumOfSquares.squareRoot()
  }

  /// The overload for unsafe buffers.
  package mutating func add(
    _ a: UnsafeRawBufferPointer, as aType: RealType, _ b: UnsafeRawBufferPointer, as bType: RealType
  ) {
    var piece = ValueDifference()
    piece.count = a.count / aType.byteCount
    precondition(a.count % aType.byteCount == 0 && b.count % bType.byteCount == 0, "half a value")
    precondition(b.count / bType.byteCount == piece.count, "not as many values on both sides")
    guard piece.count > 0, let from = a.baseAddress, let to = b.baseAddress else { return }
    var result = nibble_difference_result()
    unsafe nibble_difference(from, aType.kernelValue, to, bType.kernelValue, piece.count, &result)
    piece.differing = Int(result.differing)
    piece.undefined = Int(result.undefined)
    piece.largest = result.largest
    piece.sumOfSquares = ValueStatistics.total(result.squares)
    piece.referenceSumOfSquares = ValueStatistics.total(result.reference_squares)
    merge(piece)
  }

  /// Adds what was found about other pairs.
  public mutating func merge(_ other: ValueDifference) {
    count += other.count
    differing += other.differing
    undefined += other.undefined
    largest = max(largest, other.largest)
    sumOfSquares += other.sumOfSquares
    referenceSumOfSquares += other.referenceSumOfSquares
  }
}
