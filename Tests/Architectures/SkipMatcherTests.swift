import Testing

@testable import Architectures

@Suite struct SkipMatcherTests {
  @Test(arguments: [
    // From the start to the end of a component, or any end.
    ("lm_head", "lm_head", true, true),
    ("layer.1", "layer.1.attn", true, true),
    ("layer.1", "layer.11.attn", false, false),
    ("layer.1", "model.layer.1.attn", false, true),
    ("proj", "model.layers.0.q_proj", true, false),
    ("fc1", "model.layers.0.fc1", true, true),
    ("score", "model.layers.0.underscore", true, false),
    ("mlp.gate", "mlp.gate_proj", false, false),
    ("a.fc1", "b.a.fc1", true, false),
  ])
  func matches(_ entry: String, _ path: String, _ five: Bool, _ four: Bool) {
    for (target, expected) in [(LoaderTarget.transformers5, five), (.transformers4, four)] {
      var matcher = SkipMatcher(target: target)
      matcher.insert(Array(entry.utf8))
      #expect(matcher.matches(Array(path.utf8)) == expected, "\(target)")
    }
  }

  @Test(arguments: [("a.b_c.0", true), ("", false), ("a..b", false), ("a(b", false), ("a b", false), (".a", false)])
  func plain(_ path: String, _ expected: Bool) {
    #expect(SkipMatcher.isPlain(Array(path.utf8)) == expected)
  }
}
