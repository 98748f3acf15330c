extension StringProtocol {
  /// The text as it may go to a terminal or a log: control characters, C1 codes, bidirectional
  /// overrides and other invisible characters become `\u{…}`; text over `limit` UTF-8 bytes is cut
  /// and its full length stated.
  public func printable(limit: Int = 4096) -> String {
    var result = ""
    var length = 0
    for scalar in unicodeScalars {
      let piece = scalar.isHarmless ? String(Character(scalar)) : "\\u{\(String(scalar.value, radix: 16))}"
      length += piece.utf8.count
      if length > limit { return result + "… (\(utf8.count) bytes)" }
      result.unicodeScalars.append(contentsOf: piece.unicodeScalars)
    }
    return result
  }
}

extension Unicode.Scalar {
  /// False for whatever could move the cursor, reorder text or stay unseen.
  package var isHarmless: Bool {
    switch value {
    case 0..<0x20, 0x7F..<0xA0: false
    case 0xAD, 0x61C, 0x180E, 0x200B...0x200F, 0x2028...0x202E, 0x2060...0x206F, 0xFEFF, 0xFFF9...0xFFFB: false
    case 0xE0000...0xE0FFF: false
    default: true
    }
  }
}
