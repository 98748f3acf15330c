// The doors to the kernels: what callers hand over as spans goes on as pointers, good for the call.

/// Converts values, rounding to nearest even.
///
/// NaN and infinities are kept (a NaN becomes quiet and keeps the upper bits of its payload); values
/// are copied unchanged when the types are equal.
///
/// - Parameters:
///   - values: a whole number of `source`.
///   - output: room for as many of `target`.
/// - Throws: the first finite value that `target` cannot hold; the output is then unspecified.
public func convert(
  _ values: RawSpan, from source: FloatType, to target: FloatType, into output: inout MutableRawSpan
) throws(Overflow) {
  try unsafe values.withUnsafeBytes { (values) throws(Overflow) in
    try unsafe output.withUnsafeMutableBytes { (output) throws(Overflow) in
      try unsafe convert(values, from: source, to: target, into: output)
    }
  }
}

/// Narrows 64-bit values in one rounding to nearest even, otherwise as `convert`.
///
/// - Parameters:
///   - values: a whole number of little-endian doubles, at any alignment.
///   - output: room for as many of `target`.
/// - Throws: the first finite value that `target` cannot hold; the output is then unspecified.
public func narrow(_ values: RawSpan, to target: FloatType, into output: inout MutableRawSpan) throws(Overflow) {
  try unsafe values.withUnsafeBytes { (values) throws(Overflow) in
    try unsafe output.withUnsafeMutableBytes { (output) throws(Overflow) in
      try unsafe narrow(values, to: target, into: output)
    }
  }
}

/// Transposes a row-major matrix: output `[columns, rows]`.
///
/// - Parameters:
///   - matrix: `rows * columns` elements of `elementBytes` bytes (2, 4 or 8).
///   - output: room for as many.
public func transpose(
  _ matrix: RawSpan, rows: Int, columns: Int, elementBytes: Int, into output: inout MutableRawSpan
) {
  unsafe matrix.withUnsafeBytes { matrix in
    unsafe output.withUnsafeMutableBytes { output in
      unsafe transpose(matrix, rows: rows, columns: columns, elementBytes: elementBytes, into: output)
    }
  }
}

/// `output = values + delta`, added in 32 bits and rounded once, to nearest even.
///
/// - Parameters:
///   - values: a whole number of `type`.
///   - delta: one for each value.
///   - deltaType: what the delta is rounded to before it is added; f32 leaves it as it is.
///   - output: room for as many of `outputType`.
/// - Returns: what the values and the (rounded) delta add up to; the sums depend on how a tensor is cut, in
///   their last bits, but not on the machine.
/// - Throws: the first result that `outputType` can only hold as an infinity, or that is NaN; with the sum in
///   32 bits. The output is then unspecified.
public func addDelta(
  _ values: RawSpan, as type: FloatType, delta: Span<Float>, roundedTo deltaType: FloatType,
  into output: inout MutableRawSpan, as outputType: FloatType
) throws(NonFinite) -> ChangeSums {
  try unsafe values.withUnsafeBytes { (values) throws(NonFinite) in
    try unsafe delta.withUnsafeBufferPointer { (delta) throws(NonFinite) in
      try unsafe output.withUnsafeMutableBytes { (output) throws(NonFinite) in
        try unsafe addDelta(values, as: type, delta: delta, roundedTo: deltaType, into: output, as: outputType)
      }
    }
  }
}

extension ValueStatistics {
  /// Adds a piece of the tensor. The sums depend on how a tensor is cut, in their last bits, but not
  /// on the machine.
  ///
  /// - Parameter values: a whole number of `type`.
  public mutating func add(_ values: RawSpan, as type: FloatType) {
    unsafe values.withUnsafeBytes { unsafe add($0, as: type) }
  }
}

extension ValueDifference {
  /// Adds a piece of both tensors. The sums depend on how a tensor is cut, in their last bits, but not
  /// on the machine.
  ///
  /// - Parameters:
  ///   - a, b: as many values of `aType` as of `bType`, at any alignment.
  public mutating func add(_ a: RawSpan, as aType: RealType, _ b: RawSpan, as bType: RealType) {
    unsafe a.withUnsafeBytes { a in unsafe b.withUnsafeBytes { b in unsafe add(a, as: aType, b, as: bType) } }
  }
}
