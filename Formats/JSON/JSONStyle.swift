import Bytes

/// How JSON text is laid out.
public enum JSONStyle: Sendable {
  /// No whitespace.
  case compact
  /// One line with `", "` and `": "`: Python's `json.dumps(value)`.
  case line
  /// Python's `json.dumps(value, indent=2, ensure_ascii=False)`.
  case indented

  var colon: String { self == .compact ? ":" : ": " }

  /// What stands before an element.
  func separator(isFirst: Bool, level: Int) -> String {
    switch self {
    case .compact: isFirst ? "" : ","
    case .line: isFirst ? "" : ", "
    case .indented: (isFirst ? "" : ",") + lineBreak(level + 1)
    }
  }

  /// What stands before the closing bracket of a container that is not empty.
  func closing(level: Int) -> String { self == .indented ? lineBreak(level) : "" }

  private func lineBreak(_ level: Int) -> String { "\n" + String(repeating: "  ", count: level) }
}

extension JSONValue {
  /// The text, without a final line break. Numbers keep the text they were read with; a character
  /// that could harm a terminal (control, DEL, C1, bidirectional, invisible) is escaped.
  public func text(_ style: JSONStyle) -> String {
    var output = ""
    append(to: &output, style, level: 0)
    return output
  }

  private func append(to output: inout String, _ style: JSONStyle, level: Int) {
    switch self {
    case .null: output += "null"
    case .bool(let value): output += value ? "true" : "false"
    case .number(let number): output += number.text
    case .string(let string): string.appendJSON(to: &output)
    case .array(let elements):
      output += "["
      for (index, element) in elements.enumerated() {
        output += style.separator(isFirst: index == 0, level: level)
        element.append(to: &output, style, level: level + 1)
      }
      if !elements.isEmpty { output += style.closing(level: level) }
      output += "]"
    case .object(let object):
      output += "{"
      for (index, member) in object.members.enumerated() {
        output += style.separator(isFirst: index == 0, level: level)
        member.key.appendJSON(to: &output)
        output += style.colon
        member.value.append(to: &output, style, level: level + 1)
      }
      if !object.isEmpty { output += style.closing(level: level) }
      output += "}"
    }
  }
}

extension String {
  /// Appends this string as a JSON string, in double quotes.
  public func appendJSON(to output: inout String) {
    output += "\""
    if utf8.allSatisfy({ $0 >= 0x20 && $0 < 0x7F && $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "\\") }) {
      output += self
    } else {
      for scalar in unicodeScalars { output.unicodeScalars.append(contentsOf: scalar.jsonText.unicodeScalars) }
    }
    output += "\""
  }

  /// This string as a JSON string, in double quotes.
  public var jsonText: String {
    var output = ""
    appendJSON(to: &output)
    return output
  }
}

extension Unicode.Scalar {
  fileprivate var jsonText: String {
    switch self {
    case "\"": "\\\""
    case "\\": "\\\\"
    case "\n": "\\n"
    case "\r": "\\r"
    case "\t": "\\t"
    case "\u{8}": "\\b"
    case "\u{C}": "\\f"
    default: isHarmless ? String(Character(self)) : escaped
    }
  }

  /// `\uXXXX`, as a surrogate pair beyond U+FFFF.
  private var escaped: String {
    String(Character(self)).utf16.map { unit in
      let digits = String(unit, radix: 16)
      return "\\u" + String(repeating: "0", count: 4 - digits.utf8.count) + digits
    }.joined()
  }
}
