import Kernels

/// The statistics of a tensor's values that `inspect --stats` shows.
public struct ValueStatistics: Sendable, Equatable {
  /// The number of all values, zeros, NaNs and infinities included.
  public var count = 0
  public var zeros = 0
  public var nans = 0
  public var infinities = 0
  /// The smallest and largest finite value; infinity and -infinity when there are none. Zero is never negative.
  public var minimum = Double.infinity
  public var maximum = -Double.infinity
  /// The sums of the finite values and of their squares.
  public var sum = 0.0
  public var sumOfSquares = 0.0

  public init() {}

  /// Finite values counted.
  public var finite: Int { count - nans - infinities }

  /// The mean of the finite values; NaN when there are none.
  public var mean: Double { sum / Double(finite) }

  /// The standard deviation of the finite values, as a whole population; NaN when there are none.
  public var standardDeviation: Double {
    let variance = sumOfSquares / Double(finite) - mean * mean
    return max(variance, 0).squareRoot()
  }

  /// The overload for unsafe buffers.
  package mutating func add(_ values: UnsafeRawBufferPointer, as type: FloatType) {
    precondition(values.count % type.byteCount == 0, "half a value")
    var result = nibble_statistics_result()
    var piece = ValueStatistics()
    piece.count = values.count / type.byteCount
    guard piece.count > 0, let from = values.baseAddress else { return }
    unsafe nibble_statistics(from, type.kernelValue, piece.count, &result)
    piece.zeros = Int(result.zeros)
    piece.nans = Int(result.nans)
    piece.infinities = Int(result.infinities)
    piece.minimum = Double(result.minimum)
    piece.maximum = Double(result.maximum)
    piece.sum = Self.total(result.sums)
    piece.sumOfSquares = Self.total(result.squares)
    merge(piece)
  }

  /// Adds what was found about other values.
  public mutating func merge(_ other: ValueStatistics) {
    count += other.count
    zeros += other.zeros
    nans += other.nans
    infinities += other.infinities
    minimum = min(minimum, other.minimum)
    maximum = max(maximum, other.maximum)
    sum += other.sum
    sumOfSquares += other.sumOfSquares
  }

  /// Value `i` of a piece goes to partial sum `i % lanes`, whatever the width of the machine's vectors.
  static let lanes = 8

  static func total(
    _ sums: (Double, Double, Double, Double, Double, Double, Double, Double)
  ) -> Double {
    ((sums.0 + sums.4) + (sums.2 + sums.6)) + ((sums.1 + sums.5) + (sums.3 + sums.7))
  }
}
