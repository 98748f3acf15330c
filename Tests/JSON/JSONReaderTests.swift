import Bytes
import JSON
import Testing

/// One text and what becomes of it.
struct JSONCase: Sendable, CustomStringConvertible {
  let text: [UInt8]
  let message: String
  let offset: Int?

  init(_ text: String, _ message: String, at offset: Int? = nil) {
    self.init(Array(text.utf8), message, at: offset)
  }

  init(_ text: [UInt8], _ message: String, at offset: Int? = nil) {
    self.text = text
    self.message = message
    self.offset = offset
  }

  var description: String { String(decoding: text.prefix(40), as: UTF8.self).printable() }
}

@Suite struct JSONReaderTests {
  static let rejected: [JSONCase] = [
    JSONCase("", "JSON text ends, expected a value", at: 0),
    JSONCase("  ", "JSON text ends, expected a value", at: 2),
    JSONCase("\u{feff}{}", "found byte 0xEF, expected a value", at: 0),
    JSONCase([0xFF, 0xFE, 0x7B, 0x00], "found byte 0xFF, expected a value", at: 0),
    JSONCase([0x7B, 0x00, 0x7D, 0x00], "found byte 0x00", at: 1),
    JSONCase("{}\0", "found byte 0x00, expected the end of the JSON text", at: 2),
    JSONCase("{} {}", "found '{', expected the end of the JSON text", at: 3),
    JSONCase("[1,]", "found ']', expected a value", at: 3),
    JSONCase("[,1]", "found ',', expected a value", at: 1),
    JSONCase("[1 2]", "found '2', expected ',' or ']'", at: 3),
    JSONCase("{\"a\":1,}", "found '}', expected a key in double quotes", at: 7),
    JSONCase("{,\"a\":1}", "found ',', expected a key in double quotes", at: 1),
    JSONCase("{\"a\"}", "found '}', expected ':'", at: 4),
    JSONCase("{\"a\":}", "found '}', expected a value", at: 5),
    JSONCase("{a:1}", "found 'a', expected a key in double quotes", at: 1),
    JSONCase("{1:1}", "found '1', expected a key in double quotes", at: 1),
    JSONCase("{'a':1}", "found ''', expected a key in double quotes", at: 1),
    JSONCase("// x\n{}", "found '/', expected a value", at: 0),
    JSONCase("[1/**/]", "found '/', expected ',' or ']'", at: 2),
    JSONCase("[1}", "found '}', expected ',' or ']'", at: 2),
    JSONCase("{\"a\":1]", "found ']', expected ',' or '}'", at: 6),
    JSONCase("[", "JSON text ends", at: 1),
    JSONCase("{", "JSON text ends", at: 1),
    JSONCase("]", "found ']', expected a value", at: 0),
    JSONCase("NaN", "found 'N'", at: 0),
    JSONCase("-Infinity", "found 'I', expected a digit", at: 1),
    JSONCase("Infinity", "found 'I'", at: 0),
    JSONCase("True", "found 'T'", at: 0),
    JSONCase("tru", "found 't', expected true", at: 0),
    JSONCase("truer", "found 'r', expected the end", at: 4),
    JSONCase("nul", "found 'n', expected null", at: 0),
    JSONCase("01", "a number must not begin with 0", at: 0),
    JSONCase("-01", "a number must not begin with 0", at: 0),
    JSONCase("+1", "found '+'", at: 0),
    JSONCase("-", "JSON text ends, expected a digit", at: 1),
    JSONCase(".5", "found '.'", at: 0),
    JSONCase("5.", "JSON text ends, expected a digit", at: 2),
    JSONCase("1e", "JSON text ends, expected a digit", at: 2),
    JSONCase("1e+", "JSON text ends, expected a digit", at: 3),
    JSONCase("1.e5", "found 'e', expected a digit", at: 2),
    JSONCase("0x10", "found 'x', expected the end", at: 1),
    JSONCase("1_000", "found '_', expected the end", at: 1),
    JSONCase("\"a", "string is not closed", at: 0),
    JSONCase("\"a\\", "string is not closed"),
    JSONCase("\"\\n", "string is not closed", at: 0),
    JSONCase("\"a\nb\"", "control character byte 0x0A in a string must be escaped", at: 2),
    JSONCase("\"\\na\tb\"", "control character byte 0x09 in a string must be escaped", at: 4),
    JSONCase("\"\\'\"", "after a backslash", at: 1),
    JSONCase("\"\\u12\"", "four hexadecimal digits", at: 1),
    JSONCase("\"\\u+123\"", "four hexadecimal digits", at: 1),
    JSONCase("\"\\ud800\"", "half of a surrogate pair", at: 1),
    JSONCase("\"\\ud800\\n\"", "half of a surrogate pair", at: 1),
    JSONCase("\"\\ud800\\ud800\"", "half of a surrogate pair", at: 1),
    JSONCase("\"x\\udfff\"", "half of a surrogate pair", at: 2),
    JSONCase([0x22, 0x61, 0xFF, 0x22], "byte 0xFF is not valid UTF-8 here", at: 2),
    JSONCase([0x22, 0xC0, 0x80, 0x22], "byte 0xC0 is not valid UTF-8 here", at: 1),
    JSONCase([0x22, 0xE0, 0x9F, 0xBF, 0x22], "byte 0xE0 is not valid UTF-8 here", at: 1),
    JSONCase([0x22, 0xED, 0xA0, 0x80, 0x22], "byte 0xED is not valid UTF-8 here", at: 1),
    JSONCase([0x22, 0xF0, 0x8F, 0xBF, 0xBF, 0x22], "byte 0xF0 is not valid UTF-8 here", at: 1),
    JSONCase([0x22, 0xF4, 0x90, 0x80, 0x80, 0x22], "byte 0xF4 is not valid UTF-8 here", at: 1),
    JSONCase([0x22, 0xE2, 0x82, 0x22], "byte 0xE2 is not valid UTF-8 here", at: 1),
    JSONCase([0x22, 0x5C, 0x6E, 0xC3, 0x5C, 0x6E, 0x22], "byte 0xC3 is not valid UTF-8 here", at: 3),
    JSONCase("{\"a\":1,\"b\":{},\"a\":2}", "key 'a' occurs twice, first at offset 1", at: 14),
    JSONCase("{\"a\":1,\"\\u0061\":2}", "key 'a' occurs twice, first at offset 1", at: 7),
    JSONCase("[{\"x\":{\"k\":[],\"k\":[]}}]", "key 'k' occurs twice, first at offset 7", at: 14),
    JSONCase("{\"\":1,\"\":1}", "key '' occurs twice, first at offset 1", at: 6),
    JSONCase(String(repeating: "[", count: 5_000_000), "nested deeper than the 64 levels allowed", at: 64),
    JSONCase(String(repeating: "{\"a\":", count: 1_000_000), "nested deeper than the 64 levels allowed", at: 320),
  ]

  @Test(arguments: rejected)
  func isRejected(_ row: JSONCase) throws {
    let failure = try #require(throws: Failure.self) { _ = try JSONValue(parsing: row.text, file: "x.json") }
    #expect(failure.code == .malformed)
    #expect(failure.file == "x.json")
    if row.text.isEmpty { return #expect(failure.message == "not JSON: it is an empty file") }
    #expect(failure.message.contains(row.message), "\(failure)")
    if let offset = row.offset { #expect(failure.offset == offset) }
  }

  /// Passing over a value checks as strictly as reading it, but for repeated keys.
  @Test(arguments: rejected)
  func isRejectedWhenSkipped(_ row: JSONCase) throws {
    if row.message.contains("occurs twice") { return }
    let failure = try #require(throws: Failure.self) {
      var reader = JSONReader(row.text)
      try reader.skipValue()
      try reader.finish()
    }
    #expect(failure.message.contains(row.message), "\(failure)")
  }

  static let accepted: [(text: String, value: JSONValue)] = [
    ("null", nil), (" true\r\n", true), ("\tfalse", false), ("\"\"", ""), ("0", 0),
    ("9223372036854775807", 9_223_372_036_854_775_807), ("-9223372036854775808", -9_223_372_036_854_775_808),
    ("[]", []), ("{}", [:]), ("[ ]", []), ("{ }", [:]), ("[[],[[]]]", [[], [[]]]),
    ("{\"a\":{\"b\":[1,\"2\",null]},\"c\":true}", ["a": ["b": [1, "2", nil]], "c": true]),
    ("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0000\\u00e9\\uD83D\\uDE00\"", "\"\\/\u{8}\u{c}\n\r\t\0\u{e9}😀"),
    ("\"\u{e9}\u{7f}\u{80}€😀\u{10ffff}\"", "\u{e9}\u{7f}\u{80}€😀\u{10ffff}"),
    ("{\"\u{e9}\":1,\"e\u{301}\":2}", ["\u{e9}": 1, "e\u{301}": 2]),
    (String(repeating: "[", count: 64) + String(repeating: "]", count: 64), nested(64)),
  ]

  static func nested(_ depth: Int) -> JSONValue {
    (1..<depth).reduce(JSONValue.array([])) { value, _ in [value] }
  }

  @Test(arguments: accepted)
  func isAccepted(_ row: (text: String, value: JSONValue)) throws {
    let value = try JSONValue(parsing: Array(row.text.utf8))
    #expect(value == row.value)
    for style in [JSONStyle.compact, .line, .indented] {
      #expect(try JSONValue(parsing: Array(value.text(style).utf8)) == value)
    }
    var reader = JSONReader(Array(row.text.utf8))
    try reader.skipValue()
    try reader.finish()
  }

  @Test func everyTruncationIsRejected() throws {
    let text = Array("{\"a\":[1,-2.5e+3,\"\\ud83d\\ude00é\",{\"b\":null}],\"c\":true}".utf8)
    _ = try JSONValue(parsing: text)
    for count in 0..<text.count {
      #expect(throws: Failure.self) { _ = try JSONValue(parsing: Array(text.prefix(count))) }
    }
  }

  /// Comparing each with each takes minutes.
  @Test(.timeLimit(.minutes(1))) func manyKeysAreFoundTwiceInTime() throws {
    let keys = (0..<40_000).map { "\"key\($0)\":0" }.joined(separator: ",")
    #expect(try JSONValue(parsing: Array("{\(keys)}".utf8)).object?.count == 40_000)
    #expect(throws: Failure.self) { _ = try JSONValue(parsing: Array("{\(keys),\"key1234\":1}".utf8)) }
  }

  @Test(arguments: [
    ("4", 4), ("0", 0), ("9223372036854775807", Int.max),
  ])
  func wholeNumber(_ row: (text: String, value: Int)) throws {
    var reader = JSONReader(Array(row.text.utf8))
    #expect(try reader.wholeNumber("count") == row.value)
    try reader.finish()
  }

  @Test(arguments: [
    ("4.0", "count: found 4.0, expected a whole number from 0 up"), ("4e0", "count: found 4e0"),
    ("-1", "count: found -1"),
    ("-0", "count: found -0"), ("1e400", "count: found 1e400"),
    ("\"4\"", "count: found a string, expected a whole number"),
    ("true", "count: found true or false"), ("[4]", "count: found an array"),
    ("9223372036854775808", "which overflows the 9223372036854775807 allowed"),
    ("99999999999999999999999999", "which overflows the 9223372036854775807 allowed"),
  ])
  func wholeNumberRejects(_ row: (text: String, message: String)) throws {
    let failure = try #require(throws: Failure.self) {
      var reader = JSONReader(Array(row.text.utf8), baseOffset: 8)
      _ = try reader.wholeNumber("count")
    }
    #expect(failure.message.contains(row.message), "\(failure)")
    #expect(failure.offset == 8)
  }
}
