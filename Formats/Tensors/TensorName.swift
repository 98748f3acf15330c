/// A tensor's name: a byte string that happens to be UTF-8.
///
/// Two names are equal when their bytes are. Swift's `String` compares by canonical equivalence, which
/// would merge two tensors whose names differ only in Unicode normalization.
public struct TensorName: Sendable {
  public let string: String

  public init(_ string: String) { self.string = string }

  public var byteCount: Int { string.utf8.count }

  public func hasSuffix(_ suffix: String) -> Bool {
    let bytes = string.utf8
    let tail = suffix.utf8
    return bytes.count >= tail.count && bytes.suffix(tail.count).elementsEqual(tail)
  }

  public func hasPrefix(_ prefix: String) -> Bool {
    string.utf8.starts(with: prefix.utf8)
  }

  /// The name without the last `count` bytes, which must be ASCII.
  public func dropping(suffix: String) -> TensorName? {
    guard hasSuffix(suffix), let cut = String(string.utf8.dropLast(suffix.utf8.count)) else { return nil }
    return TensorName(cut)
  }

  public static func + (left: TensorName, right: String) -> TensorName { TensorName(left.string + right) }
}

extension TensorName: Hashable {
  public static func == (left: TensorName, right: TensorName) -> Bool {
    left.string.utf8.elementsEqual(right.string.utf8)
  }

  public func hash(into hasher: inout Hasher) {
    var copy = string
    copy.withUTF8 { unsafe hasher.combine(bytes: UnsafeRawBufferPointer($0)) }
  }
}

extension TensorName: Comparable {
  /// Byte order, as `sorted()` of Python's UTF-8 strings gives it.
  public static func < (left: TensorName, right: TensorName) -> Bool {
    left.string.utf8.lexicographicallyPrecedes(right.string.utf8)
  }
}

extension TensorName: ExpressibleByStringLiteral, CustomStringConvertible {
  public init(stringLiteral value: String) { self.init(value) }
  public var description: String { string }
}
