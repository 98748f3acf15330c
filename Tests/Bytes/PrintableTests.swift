import Bytes
import Testing

@Suite struct PrintableTests {
  @Test(arguments: [
    ("plain", "plain"), ("é e\u{301} 😀", "é e\u{301} 😀"), ("a\u{1b}[31mb", "a\\u{1b}[31mb"),
    ("a\nb\tc\r\n", "a\\u{a}b\\u{9}c\\u{d}\\u{a}"), ("\u{0}", "\\u{0}"),
    ("\u{7f}\u{80}\u{9b}\u{9f}\u{a0}", "\\u{7f}\\u{80}\\u{9b}\\u{9f}\u{a0}"),
    ("\u{202e}x\u{2066}", "\\u{202e}x\\u{2066}"),
    ("\u{200b}\u{feff}\u{2028}\u{2029}", "\\u{200b}\\u{feff}\\u{2028}\\u{2029}"),
    ("\u{ad}\u{61c}\u{180e}", "\\u{ad}\\u{61c}\\u{180e}"),
    ("\u{e0041}", "\\u{e0041}"), ("%n%s\\(x)", "%n%s\\(x)"), ("", ""),
  ])
  func escapes(_ text: String, _ expected: String) {
    #expect(Array(text.printable().utf8) == Array(expected.utf8))
  }

  @Test(arguments: [(4, "aaaa"), (3, "aaa… (4 bytes)"), (0, "… (4 bytes)")])
  func limit(_ limit: Int, _ expected: String) {
    #expect("aaaa".printable(limit: limit) == expected)
  }

  /// The limit counts what is printed, and cuts no character in two.
  @Test func limitOfEscapes() {
    #expect("\u{1b}\u{1b}".printable(limit: 6) == "\\u{1b}… (2 bytes)")
    #expect("éé".printable(limit: 3) == "é… (4 bytes)")
    let long = String(repeating: "\u{202e}", count: 100_000).printable()
    #expect(long.utf8.count < 4200 && long.hasSuffix("… (300000 bytes)"))
  }

  @Test func failures() {
    let failure = Failure(.malformed, "was\nfound", file: "f\u{1b}", tensor: "t\u{202e}", offset: 7)
    #expect(failure.description == "f\\u{1b}: tensor 't\\u{202e}': was\\u{a}found, at offset 7")
    #expect(Failure(.io, "broke").description == "broke")
    #expect(
      Failure(.io, "broke", file: "a").located(file: "b", tensor: "t") == Failure(.io, "broke", file: "a", tensor: "t"))
    #expect(Failure.Code.allCases.map(\.rawValue).sorted() == [2, 65, 66, 69, 70, 73, 74, 75, 129, 130, 141, 143])
  }
}
