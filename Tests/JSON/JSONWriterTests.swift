import JSON
import TestSupport
import Testing

@Suite struct JSONWriterTests {
  private static func text(_ body: (inout JSONWriter) -> Void) -> String {
    var writer = JSONWriter()
    body(&writer)
    return String(decoding: writer.bytes, as: UTF8.self)
  }

  /// A line for each entry, whatever is in it.
  @Test func layoutsWithinOneAnother() {
    let text = Self.text { json in
      json.beginObject(.indented)
      json.member("name", "a\"b")
      json.key("rows")
      json.beginArray(.indented)
      for number in 1...2 {
        json.beginObject(.line)
        json.member("n", number)
        json.member("shape", [number, 3])
        json.member("of", ["k": [nil, true]])
        json.end()
      }
      json.end()
      json.key("none")
      json.beginArray(.indented)
      json.end()
      json.key("nothing")
      json.beginObject(.indented)
      json.end(breaks: true)
      json.member("tree", ["a": [1]], .indented)
      json.end()
    }
    #expect(
      text == """
        {
          "name": "a\\"b",
          "rows": [
            {"n": 1, "shape": [1, 3], "of": {"k": [null, true]}},
            {"n": 2, "shape": [2, 3], "of": {"k": [null, true]}}
          ],
          "none": [],
          "nothing": {
          },
          "tree": {
            "a": [
              1
            ]
          }
        }
        """)
  }

  /// Handed on in pieces it is the same text.
  @Test func inPieces() throws {
    var whole: [UInt8] = []
    var writer = JSONWriter()
    writer.beginObject(.indented)
    for number in 0..<100 {
      writer.key("key \(number)")
      if number % 3 == 0 {
        whole += writer.bytes
        writer.clear()
      }
      writer.value([.number(number), "é"], .line)
    }
    writer.end()
    whole += writer.bytes
    let value = try JSONValue(parsing: whole)
    #expect(value.object?.count == 100 && value["key 99"] == [99, "é"])
  }

  /// Bytes and strings alike, whatever their length.
  @Test func bytesAsStrings() throws {
    var generator = SplitMix64(seed: 3)
    let scalars: [Unicode.Scalar] = [
      "a", "\"", "\\", "\n", "\0", "\u{7f}", "\u{9b}", "é", "€", "\u{202e}", "😀", "\u{e0041}",
    ]
    for length in 0..<40 {
      var string = ""
      for _ in 0..<length { string.unicodeScalars.append(scalars.randomElement(using: &generator) ?? "a") }
      let text = Self.text { $0.string(string) }
      #expect(Self.text { $0.string(utf8: Array(("x" + string + "y").utf8)[1..<(1 + string.utf8.count)]) } == text)
      #expect(text == string.jsonText)
      #expect(try JSONValue(parsing: Array(text.utf8)) == .string(string))
      #expect(
        text.unicodeScalars.allSatisfy {
          $0.value >= 0x20 && !(0x7F..<0xA0).contains($0.value) && $0 != "\u{202e}"
        })
    }
  }

  /// Bytes that are no UTF-8 do no harm.
  @Test func anyBytes() {
    for first in UInt8.min...UInt8.max {
      for rest: [UInt8] in [[], [0x80], [0xFF, 0xFF], [0xBF, 0xBF, 0xBF]] {
        #expect(Self.text { $0.string(utf8: ([first] + rest)[...]) }.utf8.count >= 2)
      }
    }
  }

  /// Were text copied when it grows, this would copy 10¹² bytes.
  @Test func aLongTextTakesTimeInProportion() {
    let string = String(repeating: "\u{2581}é", count: 400_000)
    #expect(string.jsonText.utf8.count == string.utf8.count + 2)
    let strings = JSONValue.array([JSONValue](repeating: "\u{2581}", count: 400_000))
    #expect(strings.bytes(.compact).count == 6 * 400_000 + 1)
  }

  /// Looked for from the first on, each of these would pass all before it: 10¹⁰ comparisons.
  @Test func manyMembersAreSetInTime() {
    var object = JSONObject()
    for number in 0..<100_000 { object["key \(number)"] = .number(number) }
    for number in 0..<100_000 { object["key \(number)"] = .number(number + 1) }
    #expect(object.count == 100_000 && object["key 99999"] == 100_000 && object.members[500].key == "key 500")
    object["key 7"] = nil
    object["key 7"] = 1
    #expect(object.count == 100_000 && object.members.last?.key == "key 7" && object["key 8"] == 9)
    #expect(object["key é"] == nil)
  }
}
