import Bytes
import GGUF
import JSON

/// Byte strings one after another in one buffer: as arrays of their own, a vocabulary's would be as many allocations.
struct ByteStrings: Sendable {
  private(set) var bytes: [UInt8] = []
  private var ends: [Int] = []

  var count: Int { ends.count }
  var isEmpty: Bool { ends.isEmpty }

  func range(_ position: Int) -> Range<Int> { (position == 0 ? 0 : ends[position - 1])..<ends[position] }

  subscript(position: Int) -> [UInt8] { Array(bytes[range(position)]) }

  /// Nothing is copied.
  func slice(_ position: Int) -> ArraySlice<UInt8> { bytes[range(position)] }

  mutating func append(_ string: ArraySlice<UInt8>) {
    bytes.append(contentsOf: string)
    ends.append(bytes.count)
  }

  /// The next string of a JSON text.
  mutating func append(from reader: inout JSONReader) throws(Failure) {
    try reader.string(appendingTo: &bytes)
    ends.append(bytes.count)
  }

  /// Two strings of a JSON text as one; returns the length of the first.
  mutating func appendPair(from reader: inout JSONReader) throws(Failure) -> Int? {
    let start = bytes.count
    try reader.enterArray()
    guard try reader.nextElement() else { return nil }
    try reader.string(appendingTo: &bytes)
    let length = bytes.count - start
    guard try reader.nextElement() else { return nil }
    try reader.string(appendingTo: &bytes)
    guard try !reader.nextElement() else { return nil }
    ends.append(bytes.count)
    return length
  }

  /// The key of the next member of a JSON object, with its offset.
  mutating func appendKey(from reader: inout JSONReader) throws(Failure) -> Int? {
    guard let offset = try reader.nextMember(appendingTo: &bytes) else { return nil }
    ends.append(bytes.count)
    return offset
  }

  /// Takes the one space out of the last string; returns how much stands before it, nil when it has not just one.
  mutating func removeSpace() -> Int? {
    let range = range(count - 1)
    guard let space = bytes[range].firstIndex(of: 0x20),
      bytes[(space + 1)..<range.upperBound].firstIndex(of: 0x20) == nil
    else { return nil }
    bytes.remove(at: space)
    ends[count - 1] -= 1
    return space - range.lowerBound
  }
}

/// Where each string stands. Hashed with the process's own seed, so no choice of strings can make it slow.
struct StringIndex: Sendable {
  private let strings: ByteStrings
  /// Half a hash above one more than the position; zero is free. At most half are taken.
  private var slots: [UInt64]
  /// The positions of the first string that repeats an earlier one.
  private(set) var firstDuplicate: (first: Int, second: Int)?

  init(_ strings: ByteStrings) {
    self.strings = strings
    var capacity = 16
    while capacity < 2 * strings.count { capacity *= 2 }
    slots = [UInt64](repeating: 0, count: capacity)
    for position in 0..<strings.count {
      let (slot, mark) = find(strings.bytes, strings.range(position))
      if slots[slot] == 0 {
        slots[slot] = mark | UInt64(UInt32(truncatingIfNeeded: position + 1))
      } else if firstDuplicate == nil {
        firstDuplicate = (self.position(in: slot), position)
      }
    }
  }

  /// - Parameter range: where the string lies in `bytes`.
  func position(of bytes: [UInt8], _ range: Range<Int>) -> Int? {
    let slot = find(bytes, range).slot
    return slots[slot] == 0 ? nil : position(in: slot)
  }

  private func position(in slot: Int) -> Int { Int(UInt32(truncatingIfNeeded: slots[slot])) - 1 }

  /// The slot where the string is or would be, and the upper half of its hash.
  private func find(_ bytes: [UInt8], _ range: Range<Int>) -> (slot: Int, mark: UInt64) {
    let hash = Self.hash(bytes, range)
    let mark = UInt64(truncatingIfNeeded: hash) & 0xFFFF_FFFF_0000_0000
    var slot = hash & (slots.count - 1)
    while slots[slot] != 0 {
      if slots[slot] & 0xFFFF_FFFF_0000_0000 == mark,
        Self.areEqual(strings.bytes, strings.range(position(in: slot)), bytes, range)
      {
        break
      }
      slot = (slot + 1) & (slots.count - 1)
    }
    return (slot, mark)
  }

  func position(of string: [UInt8]) -> Int? { position(of: string, string.indices) }

  private static func hash(_ bytes: [UInt8], _ range: Range<Int>) -> Int {
    var hasher = Hasher()
    unsafe bytes.withUnsafeBytes { unsafe hasher.combine(bytes: UnsafeRawBufferPointer(rebasing: $0[range])) }
    return hasher.finalize()
  }

  private static func areEqual(_ one: [UInt8], _ first: Range<Int>, _ other: [UInt8], _ second: Range<Int>) -> Bool {
    guard first.count == second.count else { return false }
    for index in 0..<first.count where one[first.lowerBound + index] != other[second.lowerBound + index] {
      return false
    }
    return true
  }
}

/// Strings as a GGUF array holds them, encoded one by one.
struct EncodedStrings {
  private(set) var bytes: [UInt8] = []
  private(set) var count = 0

  mutating func append(_ string: [UInt8]) { append(string, string.indices) }

  mutating func append(_ bytes: [UInt8], _ range: Range<Int>) {
    begin(range.count)
    self.bytes.append(contentsOf: bytes[range])
  }

  /// Two strings with a space between.
  mutating func append(_ first: ArraySlice<UInt8>, _ second: ArraySlice<UInt8>) {
    begin(first.count + 1 + second.count)
    bytes.append(contentsOf: first)
    bytes.append(0x20)
    bytes.append(contentsOf: second)
  }

  private mutating func begin(_ length: Int) {
    for shift in 0..<8 { bytes.append(UInt8(truncatingIfNeeded: length >> (8 * shift))) }
    count += 1
  }

  var value: GGUFValue { .array(GGUFArray(encodedStrings: bytes, count: count)) }
}
