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

/// `output = values + delta`, added in 32 bits and rounded once, to nearest even.
///
/// - Parameters:
///   - values: a whole number of `type`.
///   - delta: one for each value.
///   - deltaType: what the delta is rounded to before it is added; f32 leaves it as it is.
///   - output: room for as many of `outputType`; must not overlap `values`.
/// - Returns: what the values and the (rounded) delta add up to; the sums depend on how a tensor is cut, in
///   their last bits, but not on the machine.
/// - Throws: the first result that `outputType` can only hold as an infinity, or that is NaN; with the sum in
///   32 bits. The output is then unspecified.
public func addDelta(
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
