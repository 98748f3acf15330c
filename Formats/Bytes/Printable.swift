extension StringProtocol {
  /// The text as it may go to a terminal or a log: control characters, C1 codes, bidirectional
  /// overrides and other invisible characters become `\u{…}`; text over `limit` UTF-8 bytes is cut
  /// and its full length stated.
  public func printable(limit: Int = 4096) -> String {
    var result: [UInt8] = []
    for scalar in unicodeScalars {
      let end = result.count
      if scalar.isHarmless {
        if let bytes = UTF8.encode(scalar) { result.append(contentsOf: bytes) }
      } else {
        result.append(contentsOf: "\\u{\(String(scalar.value, radix: 16))}".utf8)
      }
      if result.count > limit {
        return String(decoding: result[..<end], as: UTF8.self) + "… (\(utf8.count) bytes)"
      }
    }
    return String(decoding: result, as: UTF8.self)
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
