/// Byte strings in byte order, for finding a name and for finding names that occur twice.
///
/// Sorted rather than hashed: no choice of names can make it slow, it costs 4 bytes per name, and
/// checkpoint headers are sorted already, wholly or in runs.
public struct KeyOrder: Sendable {
  /// Positions in the array of names, by the names' bytes.
  public let positions: [UInt32]

  public init(_ keys: [String]) {
    self.init(count: keys.count) { keys[$0] }
  }

  /// - Parameter key: the name at a position; must give the same answer each time.
  public init(count: Int, _ key: (Int) -> String) {
    positions = (0..<UInt32(count)).sorted { left, right in
      let order = Self.compare(key(Int(left)), key(Int(right)))
      return order < 0 || (order == 0 && left < right)
    }
  }

  /// The two positions of a name that occurs twice, the earlier first; nil when all differ.
  public func firstDuplicate(_ key: (Int) -> String) -> (first: Int, second: Int)? {
    var found: (first: Int, second: Int)?
    for (left, right) in zip(positions, positions.dropFirst())
    where Self.compare(key(Int(left)), key(Int(right))) == 0 {
      if let found, found.second <= right { continue }
      found = (Int(left), Int(right))
    }
    return found
  }

  /// Where `name` is; `key` must be what the order was made with.
  public func position(of name: String, _ key: (Int) -> String) -> Int? {
    var low = 0
    var high = positions.count
    while low < high {
      let middle = low + (high - low) / 2
      if Self.compare(key(Int(positions[middle])), name) < 0 { low = middle + 1 } else { high = middle }
    }
    guard low < positions.count else { return nil }
    let position = Int(positions[low])
    return Self.compare(key(position), name) == 0 ? position : nil
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
}
