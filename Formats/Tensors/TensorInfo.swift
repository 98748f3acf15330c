public import Bytes

/// A tensor's name, dtype, shape and sizes, known before any of its data is read.
public struct TensorInfo: Sendable, Equatable {
  public let name: TensorName
  public let type: ElementType
  /// Row-major; empty for a scalar.
  public let shape: [Int]
  /// The product of `shape`.
  public let elementCount: Int
  public let byteCount: Int

  /// - Throws: `malformed` when the element or byte count overflows, whatever the order of the
  ///   dimensions, or when sub-byte elements do not fill whole bytes.
  public init(name: TensorName, type: ElementType, shape: [Int]) throws(Failure) {
    func overflow() -> Failure {
      Failure(.malformed, "shape \(shape) × \(type.name) overflows", tensor: name.string)
    }
    // Zero dimensions are left out of the product first, so that [0, 2^62, 2^62] and
    // [2^62, 2^62, 0] get the same answer.
    var product = 1
    var isEmpty = false
    for dimension in shape {
      if dimension < 0 { throw Failure(.malformed, "shape \(shape) has a negative dimension", tensor: name.string) }
      if dimension == 0 {
        isEmpty = true
        continue
      }
      let (next, overflowed) = product.multipliedReportingOverflow(by: dimension)
      if overflowed { throw overflow() }
      product = next
    }
    let (bits, overflowed) = product.multipliedReportingOverflow(by: type.bitWidth)
    if overflowed { throw overflow() }
    if !isEmpty, bits % 8 != 0 {
      throw Failure(
        .malformed, "shape \(shape) × \(type.name) is \(bits) bits, not a whole number of bytes", tensor: name.string)
    }
    self.name = name
    self.type = type
    self.shape = shape
    self.elementCount = isEmpty ? 0 : product
    self.byteCount = isEmpty ? 0 : bits / 8
  }
}
