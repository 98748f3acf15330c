import Kernels

/// How far an addition changed its values: sums of squares, before anything is rounded to the output's type.
public struct ChangeSums: Sendable, Equatable {
  public var values = 0.0
  public var changes = 0.0

  public init() {}

  public init(values: Double, changes: Double) {
    self.values = values
    self.changes = changes
  }

  public mutating func add(_ other: ChangeSums) {
    values += other.values
    changes += other.changes
  }
}

/// The overload for unsafe buffers; those read and those written must not overlap.
package func addDelta(
  _ values: UnsafeRawBufferPointer, as type: FloatType, delta: UnsafeBufferPointer<Float>,
  roundedTo deltaType: FloatType, into output: UnsafeMutableRawBufferPointer, as outputType: FloatType
) throws(NonFinite) -> ChangeSums {
  precondition(values.count % type.byteCount == 0, "half a value")
  let count = values.count / type.byteCount
  precondition(delta.count >= count, "delta too short")
  precondition(output.count / outputType.byteCount >= count, "output too short")
  guard count > 0, let from = values.baseAddress, let change = delta.baseAddress, let to = output.baseAddress
  else { return ChangeSums() }
  var sums = nibble_change_sums()
  let finite = unsafe nibble_add_delta(
    from, type.kernelValue, change, deltaType.kernelValue, count, to, outputType.kernelValue, &sums)
  guard finite == count else { throw NonFinite(index: finite, value: sums.refused) }
  return ChangeSums(
    values: ValueStatistics.total(sums.values), changes: ValueStatistics.total(sums.changes))
}
