/// Byte strings in byte order, for finding a name and for finding names that occur twice.
///
/// Sorted rather than hashed: no choice of names can make it quadratic, it costs 4 bytes per name, and
/// checkpoint headers are sorted already, wholly or in runs.
public struct KeyOrder: Sendable {
  /// Positions in the array of names, by the names' bytes.
  public let positions: [UInt32]
  /// The positions of a name that occurs twice, the earlier first: of those, the one whose repetition
  /// comes first. Nil when all names differ.
  public let firstDuplicate: (first: Int, second: Int)?

  public init(_ keys: [String]) {
    self.init(count: keys.count) { keys[$0] }
  }

  /// - Parameter key: the name at a position; must give the same answer each time.
  public init(count: Int, _ key: (Int) -> String) {
    // Most comparisons are decided by the first bytes in which names differ at all, without touching
    // the names themselves, which lie all over memory.
    let shared = Self.sharedPrefix(count, key)
    var entries = (0..<count).map { Entry(head: Self.head(of: key($0), after: shared), position: UInt32($0)) }
    entries.sort { left, right in
      if left.head != right.head { return left.head < right.head }
      let order = Self.compare(key(Int(left.position)), key(Int(right.position)))
      return order < 0 || (order == 0 && left.position < right.position)
    }
    var duplicate: (first: Int, second: Int)?
    for (left, right) in zip(entries, entries.dropFirst()) where left.head == right.head {
      if let duplicate, duplicate.second <= right.position { continue }
      guard Self.compare(key(Int(left.position)), key(Int(right.position))) == 0 else { continue }
      duplicate = (Int(left.position), Int(right.position))
    }
    firstDuplicate = duplicate
    positions = entries.map(\.position)
  }

  /// Where `name` is; `key` must be what the order was made with.
  public func position(of name: String, _ key: (Int) -> String) -> Int? {
    let place = positions.indices.partition { Self.compare(key(Int(positions[$0])), name) < 0 }
    guard place < positions.count else { return nil }
    let position = Int(positions[place])
    return Self.compare(key(position), name) == 0 ? position : nil
  }

  /// The same order for names that have been moved: what was at `position` is now at `moved[position]`.
  public func moved(to moved: [UInt32]) -> KeyOrder {
    KeyOrder(
      positions: positions.map { moved[Int($0)] },
      firstDuplicate: firstDuplicate.map { (Int(moved[$0.first]), Int(moved[$0.second])) })
  }

  private init(positions: [UInt32], firstDuplicate: (first: Int, second: Int)?) {
    self.positions = positions
    self.firstDuplicate = firstDuplicate
  }

  /// Negative, zero or positive, like C's `memcmp`, over UTF-8 bytes; a prefix comes first.
  public static func compare(_ left: String, _ right: String) -> Int {
    let left = left.utf8Span.span
    let right = right.utf8Span.span
    for index in 0..<min(left.count, right.count) where left[index] != right[index] {
      return Int(left[index]) - Int(right[index])
    }
    return left.count - right.count
  }

  private struct Entry {
    let head: UInt64
    let position: UInt32
  }

  /// How many bytes all names begin with alike.
  private static func sharedPrefix(_ count: Int, _ key: (Int) -> String) -> Int {
    guard count > 0 else { return 0 }
    let first = key(0)
    let expected = first.utf8Span.span
    var length = expected.count
    for position in 1..<max(1, count) where length > 0 {
      let name = key(position)
      let bytes = name.utf8Span.span
      length = min(length, bytes.count)
      for index in 0..<length where bytes[index] != expected[index] {
        length = index
        break
      }
    }
    return length
  }

  /// Eight bytes of a name as a number that orders as they do; zeros stand for what is not there.
  private static func head(of name: String, after start: Int) -> UInt64 {
    let bytes = name.utf8Span.span
    var head: UInt64 = 0
    for index in 0..<8 {
      head = head << 8 | (start + index < bytes.count ? UInt64(bytes[start + index]) : 0)
    }
    return head
  }
}

extension Failure {
  /// A key that occurs twice in one object: which of the two counts would depend on the reader.
  public static func duplicateKey(_ key: String, first: Int, second: Int) -> Failure {
    Failure(.malformed, "key '\(key.printable(limit: 512))' occurs twice, first at offset \(first)", offset: second)
  }
}
