import Patterns
import Testing

@testable import Architectures

/// What Python's `re.match` finds at each position, by hand.
struct PatternCase: Sendable, CustomTestStringConvertible {
  let pattern: String
  let text: String
  /// The first match and its first group, nil when there is none.
  let match: String?
  var group: String?
  var testDescription: String { "\(pattern) in \(text)" }
}

private let cases = [
  PatternCase(pattern: "^language_model(?!\\w)", text: "language_model.lm_head", match: "language_model"),
  PatternCase(pattern: "^language_model(?!\\w)", text: "language_models.x", match: nil),
  PatternCase(pattern: "^model", text: "a.model", match: nil),
  PatternCase(pattern: "layers.(\\d+).fc1", text: "layers.12.fc1.weight", match: "layers.12.fc1", group: "12"),
  PatternCase(pattern: "layers.(\\d+).fc1", text: "layers.x.fc1.weight", match: nil),
  PatternCase(pattern: "(?<!decoder\\.)(?<!_)norm\\.", text: "final_norm.norm.weight", match: "norm."),
  PatternCase(pattern: "(?<!decoder\\.)(?<!_)norm\\.", text: "decoder.norm.weight", match: nil),
  PatternCase(pattern: "(?<!psp_modules\\.[0-9]\\.1\\.)bn\\.", text: "psp_modules.3.1.bn.bias", match: nil),
  PatternCase(pattern: "(?<!psp_modules\\.[0-9]\\.1\\.)bn\\.", text: "psp_modules.3.2.bn.bias", match: "bn."),
  PatternCase(pattern: "^model(?!\\.(language_model|visual))", text: "model.layers.0", match: "model"),
  PatternCase(pattern: "^model(?!\\.(language_model|visual))", text: "model.visual.blocks", match: nil),
  PatternCase(pattern: "(^|model\\.)layers\\.", text: "model.layers.0", match: "model.layers.", group: "model."),
  PatternCase(pattern: "(^|model\\.)layers\\.", text: "layers.0", match: "layers.", group: ""),
  PatternCase(pattern: "^(?:(?!timm_model\\.))(.+)", text: "stem.conv", match: "stem.conv", group: "stem.conv"),
  PatternCase(
    pattern: ".experts..*\\.w1.weight(?!\\w)", text: "mlp.experts.7.w1.weight", match: ".experts.7.w1.weight"),
  PatternCase(
    pattern: "encoder\\.(.+)\\.linear_q", text: "encoder.a.b.linear_q", match: "encoder.a.b.linear_q", group: "a.b"),
  PatternCase(pattern: "conv2d[123]\\.", text: "conv2d4.x conv2d2.y", match: "conv2d2."),
  PatternCase(pattern: "(convolution|sconv)\\.weight(?!_)", text: "k_sconv.weight_proj", match: nil),
  PatternCase(pattern: "^", text: "anything", match: ""),
]

@Suite struct NamePatternTests {
  @Test(arguments: cases) func matches(_ row: PatternCase) throws {
    let pattern = try #require(NamePattern(row.pattern.utf8))
    let text = Array(row.text.utf8)
    let found = (0...text.count).lazy.compactMap { pattern.match(text, at: $0) }.first
    #expect(found.map { String(decoding: text[$0.range], as: UTF8.self) } == row.match)
    #expect(found?.group.map { String(decoding: text[$0], as: UTF8.self) } == row.group)
  }

  @Test(arguments: ["(a", "a)", "[", "[]", "\\s", "a{2}", "*", "a$", "(?P<n>a)", "\\"])
  func refuses(_ pattern: String) {
    #expect(NamePattern(pattern.utf8) == nil)
  }

  @Test func everyRenamingOfTheRulesCanBeRead() throws {
    let text = RuleText.embedded
    var lists = 0
    while text.renamings(Array(String(lists).utf8), scope: nil) != nil { lists += 1 }
    #expect(lists == text.renamingListCount)
    #expect(lists > 50)
  }
}

@Suite struct GlobTests {
  @Test(arguments: [
    ("model.layers.*.mlp.down_proj", "model.layers.11.mlp.down_proj", true),
    ("model.layers.*.mlp.down_proj", "model.layers.11.mlp.up_proj", false),
    ("*.down_proj", "a.b.c.down_proj", true),
    ("*a*b*", "xxaxxbxx", true),
    ("*a*b", "xxaxxbxx", false),
    ("layer.?", "layer.1", true),
    ("layer.?", "layer.12", false),
    ("", "", true),
    ("", "a", false),
    ("*", "", true),
    ("**", "anything", true),
    ("é*", "e\u{301}x", false),
  ])
  func matches(_ pattern: String, _ text: String, _ expected: Bool) {
    #expect(Glob(pattern).matches(text) == expected)
  }

  @Test func manyStarsTakeNoExponentialTime() {
    let pattern = String(repeating: "a*", count: 200) + "b"
    #expect(!Glob(pattern).matches(String(repeating: "a", count: 5000)))
  }
}
