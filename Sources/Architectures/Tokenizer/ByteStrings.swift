/// Byte strings one after another in one buffer: as arrays of their own, a vocabulary's would be as many allocations.
struct ByteStrings: Sendable, RandomAccessCollection {
  private(set) var bytes: [UInt8] = []
  private var ends: [Int] = []

  var startIndex: Int { 0 }
  var endIndex: Int { ends.count }

  func range(_ position: Int) -> Range<Int> { (position == 0 ? 0 : ends[position - 1])..<ends[position] }

  subscript(position: Int) -> [UInt8] { Array(bytes[range(position)]) }

  /// Nothing is copied.
  func slice(_ position: Int) -> ArraySlice<UInt8> { bytes[range(position)] }

  mutating func append(_ string: some Sequence<UInt8>) {
    bytes.append(contentsOf: string)
    ends.append(bytes.count)
  }
}

/// Where each string stands. Hashed with the process's own seed, so no choice of strings can make it slow.
struct StringIndex: Sendable {
  private let strings: ByteStrings
  /// One more than the position; zero is free. At most half are taken.
  private var slots: [UInt32]
  /// The positions of the first string that repeats an earlier one.
  let firstDuplicate: (first: Int, second: Int)?

  init(_ strings: ByteStrings) {
    self.strings = strings
    var capacity = 16
    while capacity < 2 * strings.count { capacity *= 2 }
    slots = [UInt32](repeating: 0, count: capacity)
    var duplicate: (first: Int, second: Int)?
    for position in strings.indices {
      let string = strings.slice(position)
      var slot = Self.hash(string) & (capacity - 1)
      while slots[slot] != 0 {
        let other = Int(slots[slot]) - 1
        if strings.slice(other) == string {
          if duplicate == nil { duplicate = (other, position) }
          break
        }
        slot = (slot + 1) & (capacity - 1)
      }
      if slots[slot] == 0 { slots[slot] = UInt32(truncatingIfNeeded: position + 1) }
    }
    firstDuplicate = duplicate
  }

  func position(of string: ArraySlice<UInt8>) -> Int? {
    var slot = Self.hash(string) & (slots.count - 1)
    while slots[slot] != 0 {
      let position = Int(slots[slot]) - 1
      if strings.slice(position) == string { return position }
      slot = (slot + 1) & (slots.count - 1)
    }
    return nil
  }

  func position(of string: String) -> Int? { position(of: ArraySlice(string.utf8)) }

  private static func hash(_ string: ArraySlice<UInt8>) -> Int {
    var hasher = Hasher()
    unsafe string.withUnsafeBytes { unsafe hasher.combine(bytes: $0) }
    return hasher.finalize()
  }
}
