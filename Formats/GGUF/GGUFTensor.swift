public import Bytes
public import Tensors

/// A GGUF tensor's name, type, shape and sizes, known before any of its data is read.
public struct GGUFTensor: Sendable, Equatable {
  /// The most dimensions, and the longest name in bytes, that ggml can hold.
  public static let rankLimit = 4
  public static let nameLimit = 64

  public let name: TensorName
  public let type: GGMLType
  /// Row-major, as everywhere in Nibble: the reverse of the order in the file. The last dimension is a row.
  public let shape: [Int]
  public let elementCount: Int
  public let byteCount: Int

  /// - Throws: `malformed` when there are too many dimensions, a count overflows, or a row is not whole blocks.
  public init(name: TensorName, type: GGMLType, shape: [Int]) throws(Failure) {
    func rejected(_ message: String) -> Failure { Failure(.malformed, message, tensor: name.string) }
    guard shape.count <= Self.rankLimit else {
      throw rejected("has \(shape.count) dimensions, allowed are \(Self.rankLimit)")
    }
    var product = 1
    var isEmpty = false
    for dimension in shape {
      guard dimension >= 0 else { throw rejected("shape \(shape) has a negative dimension") }
      if dimension == 0 {
        isEmpty = true
        continue
      }
      let (next, overflowed) = product.multipliedReportingOverflow(by: dimension)
      if overflowed { throw rejected("shape \(shape) × \(type.name) overflows") }
      product = next
    }
    let row = shape.last ?? 1
    guard row % type.valuesPerBlock == 0 else {
      throw rejected("a row of \(row) values is not whole blocks of \(type.valuesPerBlock), as \(type.name) needs")
    }
    let (bytes, overflowed) = (product / type.valuesPerBlock).multipliedReportingOverflow(by: type.bytesPerBlock)
    if overflowed { throw rejected("shape \(shape) × \(type.name) overflows") }
    self.name = name
    self.type = type
    self.shape = shape
    elementCount = isEmpty ? 0 : product
    byteCount = isEmpty ? 0 : bytes
  }
}
