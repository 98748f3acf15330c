import Bytes
import JSON
import TestSupport
import Testing

@Suite struct JSONValueTests {
  static func parse(_ text: String) throws -> JSONValue { try JSONValue(parsing: Array(text.utf8)) }

  /// A config goes through with every digit as it was.
  @Test(arguments: [
    "1e-05", "1E-05", "1.0", "1.00", "0.1000000000000000055511151231257827", "10000.0", "1e400", "-0", "-0.0",
    "123456789012345678901234567890",
    "6.0", "3.4028234663852886e+38",
  ])
  func numbersKeepTheirText(_ text: String) throws {
    let value = try Self.parse("{\"rms_norm_eps\": \(text)}")
    #expect(value.text(.compact) == "{\"rms_norm_eps\":\(text)}")
  }

  @Test func numbersAsSwift() throws {
    #expect(try Self.parse("12").int == 12)
    #expect(try Self.parse("-0").int == 0)
    #expect(try Self.parse("12.0").int == nil)
    #expect(try Self.parse("12.5").double == 12.5)
    #expect(try Self.parse("1e400").double == nil)
    #expect(try Self.parse("9223372036854775808").int == nil)
    #expect(try Self.parse("\"12\"").int == nil)
  }

  /// As printed by `repr(float)` of Python 3.11.
  @Test(arguments: [
    (0.0, "0.0"), (-0.0, "-0.0"), (1.0, "1.0"), (-1.5, "-1.5"), (0.0123, "0.0123"), (1e-05, "1e-05"),
    (0.0001, "0.0001"),
    (0.00012345, "0.00012345"), (1.5e-07, "1.5e-07"), (123456.789, "123456.789"), (1e15, "1000000000000000.0"),
    (1e16, "1e+16"), (1.234e16, "1.234e+16"), (9007199254740992.0, "9007199254740992.0"),
    (9999999999999998.0, "9999999999999998.0"), (1e22, "1e+22"), (1e100, "1e+100"),
    (Double.leastNonzeroMagnitude, "5e-324"),
    (1.7976931348623157e+308, "1.7976931348623157e+308"), (0.1, "0.1"), (1.0 / 3.0, "0.3333333333333333"),
    (Double(Float(0.1)), "0.10000000149011612"), (2.5, "2.5"), (100.0, "100.0"),
    (0.03979014977812767, "0.03979014977812767"),
    (120.0, "120.0"), (1200000.0, "1200000.0"), (6.0e-08, "6e-08"),
  ])
  func floatsAreSpelledAsInPython(_ row: (value: Double, text: String)) throws {
    let number = try #require(JSONNumber(row.value))
    #expect(number.text == row.text)
    #expect(try Self.parse(number.text).double == row.value)
  }

  @Test func floatsRoundTrip() throws {
    var generator = SplitMix64(seed: 0x5AFE)
    for _ in 0..<20_000 {
      let value = Double(bitPattern: generator.next())
      guard let number = JSONNumber(value) else {
        #expect(!value.isFinite)
        continue
      }
      #expect(Double(number.text) == value)
      #expect(try Self.parse(number.text).number == number)
    }
    #expect(JSONNumber(.nan) == nil && JSONNumber(.infinity) == nil)
  }

  static let sample: JSONValue = [
    "quant_type": "nf4", "shape": [64, 64], "empty": [:], "none": [],
    "nested": ["ok": true, "x": nil, "list": [[1], ["a"]]],
  ]

  @Test func compact() {
    #expect(
      Self.sample.text(.compact)
        == #"{"quant_type":"nf4","shape":[64,64],"empty":{},"none":[],"nested":{"ok":true,"x":null,"list":[[1],["a"]]}}"#
    )
  }

  @Test func line() {
    #expect(
      Self.sample.text(.line)
        == #"{"quant_type": "nf4", "shape": [64, 64], "empty": {}, "none": [], "nested": {"ok": true, "x": null, "list": [[1], ["a"]]}}"#
    )
  }

  @Test func indented() {
    #expect(
      Self.sample.text(.indented) == """
        {
          "quant_type": "nf4",
          "shape": [
            64,
            64
          ],
          "empty": {},
          "none": [],
          "nested": {
            "ok": true,
            "x": null,
            "list": [
              [
                1
              ],
              [
                "a"
              ]
            ]
          }
        }
        """)
  }

  @Test(arguments: [
    ("a\"b\\c/d", #""a\"b\\c/d""#), ("\n\r\t\u{8}\u{c}", #""\n\r\t\b\f""#),
    ("\0\u{1f}\u{1b}[31m", #""\u0000\u001f\u001b[31m""#),
    ("\u{7f}\u{80}\u{9b}", #""\u007f\u0080\u009b""#),
    ("\u{202e}\u{2066}\u{200b}\u{feff}\u{2028}", #""\u202e\u2066\u200b\ufeff\u2028""#),
    ("\u{e0041}", #""\udb40\udc41""#), ("é€😀", "\"é€😀\""), ("e\u{301}", "\"e\u{301}\""),
  ])
  func escapes(_ row: (string: String, text: String)) throws {
    #expect(row.string.jsonText == row.text)
    #expect(try Self.parse(row.text) == .string(row.string))
  }

  @Test func editingKeepsTheOrder() throws {
    var value = try Self.parse("{\"b\":1,\"a\":{\"x\":1.50},\"c\":[]}")
    value["a"] = "new"
    value["d"] = true
    value["b"] = nil
    value["nothing"] = nil
    #expect(value.text(.compact) == "{\"a\":\"new\",\"c\":[],\"d\":true}")
    #expect(value.object?.keys == ["a", "c", "d"])
    #expect(value["a"]?.string == "new" && value["d"]?.bool == true && value["c"]?.array == [] && value["z"] == nil)
    var other: JSONValue = 3
    other["k"] = ["n": 1]
    #expect(other["k"]?["n"]?.int == 1)
  }

  /// Swift's String holds these two for equal; a file does not.
  @Test func keysAreBytes() throws {
    var value: JSONValue = ["\u{e9}": 1]
    value["e\u{301}"] = 2
    #expect(value.object?.count == 2)
    #expect(value["\u{e9}"]?.int == 1 && value["e\u{301}"]?.int == 2)
    #expect(JSONValue.string("\u{e9}") != .string("e\u{301}"))
  }
}
