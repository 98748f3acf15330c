extension JSONReader {
  /// An explanation of the character at the cursor, where it begins a common mistake; else nil.
  var slip: String? {
    if let encoding { return encoding }
    let rest = bytes[position...]
    switch bytes[position] {
    case UInt8(ascii: "]"), UInt8(ascii: "}"):
      return followsComma ? "a trailing comma, which JSON does not allow" : nil
    case UInt8(ascii: "/"), UInt8(ascii: "#"): return "JSON has no comments"
    case UInt8(ascii: "'"): return "JSON has no single quotes"
    case UInt8(ascii: "T") where rest.starts(with: "True".utf8): return "JSON spells it true"
    case UInt8(ascii: "F") where rest.starts(with: "False".utf8): return "JSON spells it false"
    case UInt8(ascii: "N") where rest.starts(with: "None".utf8): return "JSON spells it null"
    case UInt8(ascii: "N") where rest.starts(with: "NaN".utf8): return "JSON has no NaN"
    case UInt8(ascii: "I") where rest.starts(with: "Infinity".utf8): return "JSON has no Infinity"
    default: return nil
    }
  }

  private var followsComma: Bool {
    let last = bytes[..<position].last { ![0x20, 0x09, 0x0A, 0x0D].contains($0) }
    return last == UInt8(ascii: ",")
  }

  /// An encoding that is not UTF-8, told by the first bytes.
  private var encoding: String? {
    guard position < 2 else { return nil }
    let first = bytes.prefix(4)
    if position == 0 {
      if first.starts(with: [0xEF, 0xBB, 0xBF]) { return "the text begins with a byte-order mark; JSON has none" }
      if first.elementsEqual([0xFF, 0xFE, 0, 0]) || first.elementsEqual([0, 0, 0xFE, 0xFF]) {
        return "the text is in UTF-32; JSON is in UTF-8"
      }
      if first.starts(with: [0xFF, 0xFE]) || first.starts(with: [0xFE, 0xFF]) {
        return "the text is in UTF-16; JSON is in UTF-8"
      }
    }
    // Every text begins with two characters of ASCII.
    switch first.map({ $0 == 0 }) {
    case [false, true, true, true], [true, true, true, false]: return "the text is in UTF-32; JSON is in UTF-8"
    case [false, true, false, true], [true, false, true, false]: return "the text is in UTF-16; JSON is in UTF-8"
    default: return nil
    }
  }
}
