extension HostileFile {
  /// The length before the header.
  static let prefixes: [HostileFile] =
    [
      HostileFile(
        "empty file", "not a checkpoint: it is an empty file", bytes: { [] }, twin: { SafetensorsBuilder.file("{}") })
    ]
    + (1...7).map { count in
      HostileFile(
        "\(count) bytes", "file has \(count == 1 ? "1 byte" : "\(count) bytes"),",
        bytes: { [UInt8](repeating: 0, count: count) }, twin: { SafetensorsBuilder.file("{}") })
    }
    + [
      HostileFile(
        "length 0", "header length is 0 bytes", bytes: { [UInt8](repeating: 0, count: 8) },
        twin: { SafetensorsBuilder.file("{}") }),
      HostileFile(
        "length past the end", "header length is 1000 bytes, only 92 follow it",
        bytes: { SafetensorsBuilder.file(padded(valid, to: 88), [1, 1, 1, 1], length: 1000) },
        twin: { SafetensorsBuilder.file(padded(valid, to: 88), [1, 1, 1, 1]) }),
    ]
    + [UInt64.max - 7, UInt64.max, 1 << 63, (1 << 63) - 1, 100_000_001].map { (length: UInt64) in
      HostileFile(
        "length \(length)", "header length is \(length) bytes, allowed are",
        bytes: { SafetensorsBuilder.file(valid, [1, 1, 1, 1], length: length) },
        twin: { SafetensorsBuilder.file(valid, [1, 1, 1, 1]) })
    }

  /// What is not JSON, or not UTF-8.
  static let texts: [HostileFile] =
    notUTF8
    + [
      raw("byte-order mark", "found byte 0xEF", [0xEF, 0xBB, 0xBF] + valid.utf8),
      raw("UTF-16", "found byte 0x00", valid.utf8.flatMap { [$0, 0] }),
      raw("UTF-16 with byte-order mark", "found byte 0xFF", [0xFF, 0xFE] + valid.utf8.flatMap { [$0, 0] }),
      raw("NUL padding", "found byte 0x00, expected the end of the JSON text", Array(valid.utf8) + [0, 0, 0]),
      text("letter after the object", "found 'x', expected the end of the JSON text", valid + " x"),
      text("second object", "found '{', expected the end of the JSON text", valid + "{}"),
      text("trailing comma", "expected a key in double quotes", "{\"a\":\(t4),}"),
      text("trailing comma in shape", "found ']', expected a value", valid.replacing("[4]", with: "[4,]")),
      text("comment", "found '/'", "{/**/\"a\":\(t4)}"),
      text("single quotes", "expected a key in double quotes", "{'a':\(t4)}"),
      text("NaN", "found 'N'", valid.replacing("[4]", with: "[NaN]")),
      text("01", "must not begin with 0", valid.replacing("[4]", with: "[04]")),
      text("+1", "found '+'", valid.replacing("[4]", with: "[+4]")),
      text(".5", "found '.'", valid.replacing("[4]", with: "[.5]")),
      text("no colon", "expected ':'", "{\"a\" \(t4)}"),
      text("no comma", "expected ',' or '}'", "{\"a\":\(t4)\"b\":\(t4)}"),
      text("unclosed string", "string is not closed", "{\"a"),
      text("unclosed object", "JSON text ends", "{\"a\":\(t4)"),
      text("raw control character in a name", "must be escaped", "{\"a\u{1}\":\(t4)}"),
      text("unknown escape", "after a backslash", "{\"a\\x\":\(t4)}"),
      text("lone high surrogate", "half of a surrogate pair", "{\"\\ud800\":\(t4)}"),
      text("lone low surrogate", "half of a surrogate pair", "{\"\\udc00\":\(t4)}"),
      text("high surrogate and a letter", "half of a surrogate pair", "{\"\\ud800\\u0041\":\(t4)}"),
      text("short escape", "four hexadecimal digits", "{\"\\u00g0\":\(t4)}"),
      text("nested 5 000 000 deep", "found '[', expected an object", deep("{\"a\":", 5_000_000, "}")),
      text(
        "nested 5 000 000 deep in an unknown field", "nested deeper than the 64 levels allowed",
        deep("{\"a\":{\"x\":", 5_000_000, "}}")),
    ]
    + ["[]", "null", "1", "\"x\""].map { text("top level \($0)", "is not a JSON object", padded($0, to: 2)) }

  private static let notUTF8: [HostileFile] =
    [
      ("0xFF", [0xFF]), ("overlong NUL", [0xC0, 0x80]), ("overlong slash", [0xE0, 0x80, 0xAF]),
      ("CESU surrogate", [0xED, 0xA0, 0x80]), ("truncated euro sign", [0xE2, 0x82]),
      ("above U+10FFFF", [0xF4, 0x90, 0x80, 0x80]), ("five-byte form", [0xF8, 0x88, 0x80, 0x80, 0x80]),
      ("continuation alone", [0x80]),
    ].map { (name: String, bytes: [UInt8]) in
      // Two bytes of object and quote stand before it, eight of length before them.
      raw(
        "not UTF-8: \(name)", "is not valid UTF-8 here, at offset 10",
        Array("{\"".utf8) + bytes + Array("\":\(t4)}".utf8))
    } + [
      raw("not UTF-8: top level", "found byte 0xFF", [0xFF, 0x20]),
      // Repaired, the two names would be one.
      raw(
        "names that differ in invalid bytes only", "byte 0xFF is not valid UTF-8 here, at offset 11",
        Array("{\"a".utf8) + [0xFF] + Array("\":\(t4),\"a".utf8) + [0xFE] + Array("\":\(t4)}".utf8)),
    ]

  private static func raw(_ name: String, _ message: String, _ header: [UInt8]) -> HostileFile {
    HostileFile(
      name, message, bytes: { SafetensorsBuilder.file(header, [1, 1, 1, 1]) },
      twin: { SafetensorsBuilder.file(valid, [1, 1, 1, 1]) })
  }

  private static func text(_ name: String, _ message: String, _ header: @autoclosure @escaping @Sendable () -> String)
    -> HostileFile
  {
    HostileFile(
      name, message, bytes: { SafetensorsBuilder.file(header(), [1, 1, 1, 1]) },
      twin: { SafetensorsBuilder.file(valid, [1, 1, 1, 1]) })
  }

  private static func deep(_ before: String, _ depth: Int, _ after: String) -> String {
    before + String(repeating: "[", count: depth) + String(repeating: "]", count: depth) + after
  }

  static func padded(_ text: String, to count: Int) -> String {
    text + String(repeating: " ", count: max(0, count - text.utf8.count))
  }
}
