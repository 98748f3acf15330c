public import Bytes

/// Fills shards one after the other, from sizes alone.
///
/// A layer goes whole into one shard; when it alone is larger than the limit, it is split between its
/// groups, and a group, such as a quantized weight with its statistics, is never split. A group larger than
/// a shard therefore makes a larger shard.
public struct ShardPacker: Sendable {
  /// Bytes of data, and tensors, of one shard or of what goes into one.
  public struct Size: Sendable, Equatable {
    public var bytes: Int
    public var tensors: Int

    public init(bytes: Int, tensors: Int) {
      self.bytes = bytes
      self.tensors = tensors
    }
  }

  public let limit: Size
  private var current = Size(bytes: 0, tensors: 0)

  public init(limit: Size) { self.limit = limit }

  /// - Parameter groups: the groups of one layer.
  /// - Returns: for each group whether a new shard begins with it.
  /// - Throws: `malformed` when sizes overflow.
  public mutating func add(_ groups: [Size]) throws(Failure) -> [Bool] {
    var whole = Size(bytes: 0, tensors: 0)
    for group in groups { whole = try Self.sum(whole, group) }
    var starts = groups.map { _ in false }
    if !starts.isEmpty, whole.bytes <= limit.bytes, whole.tensors <= limit.tensors {
      starts[0] = try place(whole)
    } else {
      for (index, group) in groups.enumerated() { starts[index] = try place(group) }
    }
    return starts
  }

  /// - Returns: whether it did not fit into the shard at hand.
  private mutating func place(_ size: Size) throws(Failure) -> Bool {
    let sum = try Self.sum(current, size)
    let fits = sum.bytes <= limit.bytes && sum.tensors <= limit.tensors
    if fits || current.tensors == 0 {
      current = sum
      return false
    }
    current = size
    return true
  }

  private static func sum(_ one: Size, _ other: Size) throws(Failure) -> Size {
    let (bytes, overflowed) = one.bytes.addingReportingOverflow(other.bytes)
    let (tensors, tooMany) = one.tensors.addingReportingOverflow(other.tensors)
    if overflowed || tooMany { throw Failure(.malformed, "the sizes of the tensors to be written overflow") }
    return Size(bytes: bytes, tensors: tensors)
  }
}
