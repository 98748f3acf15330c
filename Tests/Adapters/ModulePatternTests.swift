import Testing

@testable import Adapters

@Suite struct ModulePatternTests {
  static let paths = [
    "model.layers.0.self_attn.q_proj", "model.layers.10.mlp.down_proj", "q_proj", "lm_head", "model.q_proj_x",
    "model.layers.1.experts.gate_up_proj", "model.h\u{e9}llo.k", "a+b", "model.layers.0.self_attn.q_proj\nx",
  ]

  /// Pattern, and for each path whether Python's `re.match(rf"(.*\.)?({pattern})$", path)` finds it.
  static let rows: [(pattern: String, found: String)] = [
    (#"q_proj"#, "101000000"),
    (#"proj"#, "000000000"),
    (#"_proj"#, "000000000"),
    (#".*_proj"#, "111001000"),
    (#".*proj"#, "111001000"),
    (#"layers.0.self_attn.q_proj"#, "100000000"),
    (#"layers\.0\.self_attn\.q_proj"#, "100000000"),
    (#"layers.1"#, "000000000"),
    (#"0.self_attn.q_proj"#, "100000000"),
    (#".self_attn.q_proj"#, "000000000"),
    (#"model"#, "000000000"),
    (#"model.*"#, "110011100"),
    (#"model.layers.[0-9].self_attn.q_proj"#, "100000000"),
    (#"layers.\d+.mlp.(up|down)_proj"#, "010000000"),
    (#"layers.\d{2}.mlp.down_proj"#, "010000000"),
    (#"layers.\d{1}.mlp.down_proj"#, "000000000"),
    (#"layers.\d{,2}.mlp.down_proj"#, "010000000"),
    (#"layers.\d{2,}.mlp.down_proj"#, "010000000"),
    (#"layers\.(0|1)\.self_attn\.(q|k)_proj"#, "100000000"),
    (#"q_proj|lm_head"#, "101100000"),
    (#"(q_proj|lm_head)"#, "101100000"),
    (#"|q_proj"#, "101000000"),
    (#"q_proj|"#, "101000000"),
    (#"^q_proj"#, "001000000"),
    (#"^model.*q_proj"#, "100000000"),
    (#"^layers.*q_proj"#, "000000000"),
    (#"q_proj$"#, "101000000"),
    (#"q_proj$$"#, "101000000"),
    (#"lm_head\Z"#, "000100000"),
    (#"\Alm_head"#, "000100000"),
    (#"lm_hea[a-d]"#, "000100000"),
    (#"lm_hea[^a-d]"#, "000000000"),
    (#"lm_hea[]d]"#, "000100000"),
    (#"lm_hea[^]]"#, "000100000"),
    (#"lm_hea[d-]"#, "000100000"),
    (#"lm_hea[\w]"#, "000100000"),
    (#"lm_hea[\s\d]"#, "000000000"),
    (#"lm_hea[\sd\d]"#, "000100000"),
    (#"l\w_\w{4}"#, "000100000"),
    (#"l\W_head"#, "000000000"),
    (#"\S+"#, "111111110"),
    (#"\D+"#, "111111111"),
    (#"[^.]+"#, "111111111"),
    (#"[^.]*head"#, "000100000"),
    (#"(?:lm)_(?P<rest>head)"#, "000100000"),
    (#"l?m?_?head"#, "000100000"),
    (#"lm_head??"#, "000100000"),
    (#"(?:l|lm|m)+_head"#, "000100000"),
    (#"(a+)+"#, "000000000"),
    (#"(\w+)+$"#, "111111100"),
    (#"(x*)*q_proj"#, "101000000"),
    (#"(|q)_proj"#, "101000000"),
    (#"(q|)_proj"#, "101000000"),
    (#"((q))_proj"#, "101000000"),
    (#"()q_proj"#, "101000000"),
    (#"h.llo.k"#, "000000100"),
    (#"h[é]llo.k"#, "000000100"),
    (#"h\wllo.k"#, "000000100"),
    (#"h[^x]llo.k"#, "000000100"),
    (#"h\Sllo.k"#, "000000100"),
    (#"a\+b"#, "000000010"),
    (#"a+b"#, "000000000"),
    (#"a[+]b"#, "000000010"),
    (#"q\_proj"#, "101000000"),
    (#"q{1}_proj"#, "101000000"),
    (#"q{0}lm_head"#, "000100000"),
    (#"(q_proj){1,2}"#, "101000000"),
    (#"[a-z_]+"#, "111111100"),
    (#"[A-Z]+"#, "000000000"),
    (#"[a-zA-Z_.0-9]+"#, "111111100"),
    (#"layers.(\d+).(mlp|self_attn).(q|down)_proj"#, "110000000"),
    (#"."#, "000000100"),
    (#".."#, "000000000"),
    (#".*"#, "111111110"),
    (#".+"#, "111111110"),
    (#".*\.experts\.(gate_up|down)_proj"#, "000001000"),
    (#""#, "000000000"),
  ]

  @Test(arguments: rows)
  func matchesAsPythonDoes(_ row: (pattern: String, found: String)) throws {
    let pattern = try #require(ModulePattern(row.pattern))
    let found = Self.paths.map { pattern.matches($0) ? "1" : "0" }.joined()
    #expect(found == row.found, "\(row.pattern)")
  }

  /// Not regular, not understood, or not a pattern in Python either.
  @Test(arguments: [
    "(?!k)q", "(?=q)q", "(?<=x)q", "(?<!x)q", #"(a)\1"#, "(?P=n)", "(?i)Q", "(?#c)q", "(?>a)", "(?(1)a|b)", #"\bq"#,
    #"\Bq"#, #"\tq"#, #"\nq"#, #"\x41"#, #"\u0041"#, #"\p{L}"#, #"[\D]"#, #"[\S]"#, #"[\W]"#, #"[\b]"#, #"[\n]"#,
    #"[a-\d]"#, "a*+", "a++", "a?+", "a{2}+", "a**", "a{2}{3}", "*a", "+", "?", "{2}", "a{", "a{x}", "a{2,1}", "(a",
    "a)", "(?P<n", "(?P<", "(?", "(", ")", "[", "[]", "[^]", "[^", "[a", "[a-", "[z-a]", #"[\"#, #"\"#, "(?<n>a)",
  ])
  func isNotUnderstood(_ text: String) {
    #expect(ModulePattern(text) == nil)
  }

  @Test func sizeIsLimited() {
    #expect(ModulePattern(String(repeating: "q", count: ModulePattern.lengthLimit)) != nil)
    #expect(ModulePattern(String(repeating: "q", count: ModulePattern.lengthLimit + 1)) == nil)
    #expect(ModulePattern("a{9000}") != nil)
    #expect(ModulePattern("a{10001}") == nil)
    #expect(ModulePattern("(a{100}){100}") == nil)
    #expect(ModulePattern("((((a{100}){100}){100}){100}){100}") == nil)
    #expect(ModulePattern("a{99999999999999999999}") == nil)
    #expect(ModulePattern("(|a?){0,99999}") == nil)
    #expect(ModulePattern("(((){99999}){99999}){99999}") != nil)
    let nested = { (depth: Int) in String(repeating: "(", count: depth) + "a" + String(repeating: ")", count: depth) }
    #expect(ModulePattern(nested(64))?.matches("x.a") == true)
    #expect(ModulePattern(nested(65)) == nil)
    #expect(ModulePattern(nested(2000)) == nil)
  }

  /// Where a backtracking engine takes minutes or for ever, a minute is not the time of the test but what tells the two apart.
  @Test(
    .timeLimit(.minutes(1)),
    arguments: [
      "(a+)+", "(a|a)*", "(a*)*", "(a|aa)+", "(.*)*", "(a?){30}a{30}", "([a-z]+)*x", "(.*a){20}", "((a*)*)*",
    ])
  func takesTimeInProportion(_ text: String) throws {
    let pattern = try #require(ModulePattern(text))
    let path = String(repeating: "a", count: 10_000)
    _ = pattern.matches(path)
    _ = pattern.matches(path + "!")
    // 2⁶⁴ ways for who tries them all.
    _ = pattern.matches(String(repeating: "a", count: 64) + "b")
  }
}
