/// Where a byte string stops being UTF-8.
enum UTF8Check {
  /// Index of the first byte of the first sequence that is overlong, truncated, a surrogate, above
  /// U+10FFFF or otherwise ill-formed (RFC 3629 §4); nil when `range` is valid.
  static func firstFault(in bytes: [UInt8], _ range: Range<Int>) -> Int? {
    var index = range.lowerBound
    while index < range.upperBound {
      guard let length = sequenceLength(in: bytes, index, range.upperBound) else { return index }
      index += length
    }
    return nil
  }

  private static func sequenceLength(in bytes: [UInt8], _ start: Int, _ end: Int) -> Int? {
    // The allowed range of the second byte is what rules out overlong forms and surrogates.
    let (length, second): (Int, ClosedRange<UInt8>)
    switch bytes[start] {
    case 0x00...0x7F: return 1
    case 0xC2...0xDF: (length, second) = (2, 0x80...0xBF)
    case 0xE0: (length, second) = (3, 0xA0...0xBF)
    case 0xE1...0xEC, 0xEE...0xEF: (length, second) = (3, 0x80...0xBF)
    case 0xED: (length, second) = (3, 0x80...0x9F)
    case 0xF0: (length, second) = (4, 0x90...0xBF)
    case 0xF1...0xF3: (length, second) = (4, 0x80...0xBF)
    case 0xF4: (length, second) = (4, 0x80...0x8F)
    default: return nil
    }
    guard end - start >= length, second.contains(bytes[start + 1]) else { return nil }
    for byte in bytes[(start + 2)..<(start + length)] where !(0x80...0xBF).contains(byte) { return nil }
    return length
  }
}
