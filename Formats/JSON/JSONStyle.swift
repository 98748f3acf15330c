/// How JSON text is laid out.
public enum JSONStyle: Sendable {
  /// No whitespace.
  case compact
  /// One line with `", "` and `": "`: Python's `json.dumps(value)`.
  case line
  /// Python's `json.dumps(value, indent=2, ensure_ascii=False)`.
  case indented
}

extension JSONValue {
  /// The text, without a final line break. Numbers keep the text they were read with; a character
  /// that could harm a terminal (control, DEL, C1, bidirectional, invisible) is escaped.
  public func bytes(_ style: JSONStyle) -> [UInt8] {
    var writer = JSONWriter()
    writer.value(self, style)
    return writer.bytes
  }

  public func text(_ style: JSONStyle) -> String { String(decoding: bytes(style), as: UTF8.self) }
}

extension String {
  /// This string as a JSON string, in double quotes.
  public var jsonText: String { JSONValue.string(self).text(.compact) }
}
