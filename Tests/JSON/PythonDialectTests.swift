import Bytes
import JSON
import Testing

/// What Python's `json` writes beyond RFC 8259.
@Suite struct PythonDialectTests {
  private static func parse(_ text: String, _ dialect: JSONDialect = .python) throws -> JSONValue {
    try JSONValue(parsing: Array(text.utf8), dialect)
  }

  /// Each is written back as it was, byte for byte, and refused by the strict dialect.
  @Test(arguments: [
    "NaN", "Infinity", "-Infinity", "[0.0,Infinity]", #"{"a":NaN,"b":[-Infinity,1e400]}"#, #""\ud800""#, #""\udfff""#,
    #""a\ud83db""#, #""\ud800\ud800""#, #""\ud800\ud83dx\udc00""#, #""é€\ud800\u0000\"\\\n""#,
    #""\udc00\ud800""#, #"{"\ud800":1}"#, #"{"a":1,"\ud800":2,"b":3,"\udc00":{"\ud801":[]},"\ud802":null}"#,
    #"[{"\ud800":"\ud800"}]"#,
  ])
  func isKept(_ text: String) throws {
    let value = try Self.parse(text)
    #expect(value.text(.compact) == text)
    #expect(try Self.parse(value.text(.indented)) == value)
    #expect(throws: Failure.self) { try Self.parse(text, .strict) }
    var reader = JSONReader(Array(text.utf8), .python)
    try reader.skipValue()
    try reader.finish()
  }

  /// A pair is one character however it is written; escapes are written in small letters, as Python does.
  @Test func pairs() throws {
    #expect(try Self.parse(#""\ud83d\ude00""#) == "😀")
    #expect(try Self.parse(#""\ud83d\ud83d\ude00""#).text(.compact) == #""\ud83d😀""#)
    #expect(try Self.parse(#""\uD83D""#) == Self.parse(#""\ud83d""#))
    #expect(try Self.parse(#""\uD83D\n""#).text(.compact) == #""\ud83d\n""#)
    #expect(try Self.parse(#""\ud83d\u0041""#).text(.compact) == #""\ud83dA""#)
  }

  @Test func numbers() throws {
    for (text, value) in [("Infinity", Double.infinity), ("-Infinity", -.infinity)] {
      let number = try #require(try Self.parse(text).number)
      #expect(!number.isFinite && number.notFinite == value && number.double == nil && number.int == nil)
      #expect(JSONNumber(python: value) == number)
    }
    #expect(try Self.parse("NaN").number?.notFinite?.isNaN == true)
    #expect(JSONNumber(python: .nan).text == "NaN" && JSONNumber(python: 1e-05).text == "1e-05")
    #expect(try Self.parse("NaN").kind.rawValue == "NaN or Infinity")
    // Twins: numbers, whatever their size.
    #expect(try Self.parse("1e400").number?.isFinite == true && Self.parse("1e400").kind == .number)
    var reader = JSONReader(Array("NaN".utf8), .python)
    let failure = try #require(throws: Failure.self) { _ = try reader.wholeNumber("size") }
    #expect(failure.message == "size: found NaN, expected a whole number from 0 up")
  }

  /// Nothing that can be asked for is equal to an ill-formed key or string.
  @Test func lookup() throws {
    var object = try #require(try Self.parse(#"{"a":1,"\ud800":"\ud800","\ufffd":2,"c":3,"\udc00":4}"#).object)
    #expect(object.count == 5 && object.hasIllFormedKeys && object.keys == ["a", "\u{fffd}", "c"])
    #expect(object["\u{fffd}"]?.int == 2 && object["\u{fffd}\u{fffd}\u{fffd}"] == nil && object[""] == nil)
    object["a"] = nil
    object["d"] = 5
    let written = #"{"\ud800":"\ud800","\ufffd":2,"c":3,"\udc00":4,"d":5}"#
    #expect(JSONValue.object(object).text(.compact) == written.replacing("\\ufffd", with: "\u{fffd}"))
    object["\u{fffd}"] = nil
    #expect(JSONValue.object(object).text(.compact) == #"{"\ud800":"\ud800","c":3,"\udc00":4,"d":5}"#)
    let value = try Self.parse(#""\ud800""#)
    #expect(value.string == nil && value != "\u{fffd}")
    #expect(value.kind.rawValue == "a string with half of a surrogate pair")
    #expect(try Self.parse(#"[{"a":["\ud800"]}]"#).hasIllFormedText && Self.parse(#"{"\ud800":1}"#).hasIllFormedText)
    #expect(try !Self.parse(#"[{"a":["\ud83d\ude00"]}]"#).hasIllFormedText)
    #expect(try Self.parse(#"{"\ud800":1,"a":2}"#) != Self.parse(#"{"a":2,"\ud800":1}"#))
  }

  /// Who reads member by member sees those that have names; who wants bytes gets those that are no UTF-8 too.
  @Test func reader() throws {
    var reader = JSONReader(Array(#"{"\ud800":{"x":[NaN]},"a":1,"\udc00":2}"#.utf8), .python)
    try reader.enterObject()
    #expect(try reader.nextMember()?.key == "a")
    #expect(try reader.wholeNumber("a") == 1)
    #expect(try reader.nextMember() == nil)
    try reader.finish()
    var bytes: [UInt8] = []
    var strings = JSONReader(Array(#""x\ud800""#.utf8), .python)
    try strings.string(appendingTo: &bytes)
    #expect(bytes == [0x78, 0xED, 0xA0, 0x80])
  }

  static let rejected: [JSONCase] = [
    JSONCase("-NaN", "found 'N', expected a digit", at: 1), JSONCase("+Infinity", "found '+', expected a value", at: 0),
    JSONCase("Inf", "found 'I', expected Infinity", at: 0), JSONCase("nan", "found 'n', expected null", at: 0),
    JSONCase("NaNa", "found 'a', expected the end", at: 3),
    JSONCase("--Infinity", "found '-', expected a digit", at: 1),
    JSONCase("{\"\\ud800\":1,\"a\":2,\"\\uD800\":3}", "key '\\ud800' occurs twice, first at offset 1", at: 18),
    JSONCase("{\"a\":NaN,\"a\":NaN}", "key 'a' occurs twice", at: 9),
    JSONCase([0x22, 0xED, 0xA0, 0x80, 0x22], "byte 0xED is not valid UTF-8 here", at: 1),
    JSONCase(Array(#""\ud800"#.utf8) + [0xED, 0xB0, 0x80, 0x22], "byte 0xED is not valid UTF-8 here", at: 7),
    JSONCase("\"\\ud800", "string is not closed", at: 0), JSONCase("\"\\ud80\"", "four hexadecimal digits", at: 1),
    JSONCase("\u{feff}{}", "expected a value: the text begins with a byte-order mark; JSON has none", at: 0),
    JSONCase([0xFF, 0xFE, 0x7B, 0, 0x7D, 0], "the text is in UTF-16; JSON is in UTF-8", at: 0),
    JSONCase([0xFE, 0xFF, 0, 0x7B, 0, 0x7D], "the text is in UTF-16; JSON is in UTF-8", at: 0),
    JSONCase([0x7B, 0, 0x7D, 0], "the text is in UTF-16; JSON is in UTF-8", at: 1),
    JSONCase([0, 0x7B, 0, 0x7D], "the text is in UTF-16; JSON is in UTF-8", at: 0),
    JSONCase([0xFF, 0xFE, 0, 0, 0x7B, 0, 0, 0], "the text is in UTF-32; JSON is in UTF-8", at: 0),
    JSONCase([0x7B, 0, 0, 0, 0x7D, 0, 0, 0], "the text is in UTF-32; JSON is in UTF-8", at: 1),
    JSONCase("[1, ]", "expected a value after ',': a trailing comma, which JSON does not allow", at: 4),
    JSONCase("{\"a\":1,\n}", "expected a key in double quotes: a trailing comma, which JSON does not allow", at: 8),
    JSONCase("{ // x\n}", "JSON has no comments", at: 2), JSONCase("# x\n{}", "JSON has no comments", at: 0),
    JSONCase("[1 /* x */]", "JSON has no comments", at: 3), JSONCase("{'a': 1}", "JSON has no single quotes", at: 1),
    JSONCase("['a']", "JSON has no single quotes", at: 1), JSONCase("[True]", "JSON spells it true", at: 1),
    JSONCase("[False]", "JSON spells it false", at: 1), JSONCase("[None]", "JSON spells it null", at: 1),
  ]

  @Test(arguments: rejected)
  func isRejected(_ row: JSONCase) throws {
    let failure = try #require(throws: Failure.self) { _ = try JSONValue(parsing: row.text, .python) }
    #expect(failure.code == .malformed && failure.message.contains(row.message), "\(failure)")
    #expect(failure.offset == row.offset)
  }

  /// What is only near a slip is called by no such name.
  @Test(arguments: ["[}", "{]", "[1}", "{\"a\":}", "0\0", "\0\0", "[\0]", "Nope", "[1 2]"])
  func isNoSlip(_ text: String) throws {
    let failure = try #require(throws: Failure.self) { _ = try JSONValue(parsing: Array(text.utf8), .python) }
    #expect(!failure.message.contains(": "), "\(failure)")
  }

  @Test func strictSaysWhatItLacks() throws {
    for (text, slip) in [("[NaN]", "JSON has no NaN"), ("[Infinity]", "JSON has no Infinity")] {
      let failure = try #require(throws: Failure.self) { _ = try Self.parse(text, .strict) }
      #expect(failure.message.hasSuffix(": " + slip))
    }
  }
}
