import Testing

@testable import Architectures

@Suite struct ClassRuleTests {
  @Test func everyRuleCanBeRead() throws {
    let names = RuleText.embedded.classNames
    #expect(names.count > 1600)
    for name in names {
      let architecture = String(decoding: name, as: UTF8.self)
      let rule = try #require(ClassRule(architecture: architecture))
      let paths = Array(rule.kinds.keys) + rule.lastPaths
      let marks: Set = [UInt8(ascii: "*"), UInt8(ascii: "$")]
      let filled = paths.map { $0.map { marks.contains($0) ? UInt8(ascii: "0") : $0 } }
      #expect(filled.allSatisfy(SkipMatcher.isPlain), "\(architecture)")
    }
  }

  @Test func sectionsReferToEachOther() throws {
    let text = RuleText(
      bytes: Array(
        """
        # a comment
        [names 0]
        r gamma => weight
        [names 1]
        r ^old\\. =>
        c a.w b.w => c.w
        [block 1]
        L layers.*.mlp up down
        N . embed
        [block 2]
        @ 1 inner
        o . head
        [class A B]
        prefix base ties
        names 1 .
        @ 2 base
        l layers.$ out
        [class C]
        prefix -
        @ 1 .

        """.utf8))
    let rule = try #require(ClassRule(architecture: "B", text: text))
    #expect(rule.prefix == Array("base".utf8))
    #expect(rule.tiesByDefault)
    #expect(rule.renamings.map(\.kind) == [.rename, .conversion, .rename])
    #expect(rule.renamings.map(\.scope) == [[], [], nil])
    #expect(rule.kind(of: Array("base.inner.layers.12.mlp.up".utf8)) == .linear)
    #expect(rule.kind(of: Array("base.inner.embed".utf8)) == .other)
    #expect(rule.kind(of: Array("base.head".utf8)) == .outputEmbedding)
    #expect(rule.kind(of: Array("head".utf8)) == nil)
    #expect(rule.lastPaths == [Array("layers.$.out".utf8)])
    let other = try #require(ClassRule(architecture: "C", text: text))
    #expect(other.prefix == [])
    #expect(!other.tiesByDefault)
    #expect(other.kind(of: Array("layers.0.mlp.down".utf8)) == .linear)
    #expect(ClassRule(architecture: "D", text: text) == nil)
  }
}

@Suite struct RenamingTests {
  private func renamed(_ rows: String, _ name: String, prefix: String = "model", scope: String? = nil) throws -> String?
  {
    let head = scope.map { "names 1 \($0)" } ?? "names 1"
    let text = RuleText(
      bytes: Array("[names 0]\n[names 1]\n\(rows)\n[class A]\nprefix \(prefix)\n\(head)\nN . x\n".utf8))
    let rule = try #require(ClassRule(architecture: "A", text: text))
    let found = try #require(rule.renamings.first).applied(to: Array(name.utf8), basePrefix: rule.prefix)
    return found.map { String(decoding: $0.name, as: UTF8.self) }
  }

  @Test func targets() throws {
    #expect(try renamed("r ^language_model.lm_head => lm_head", "language_model.lm_head.weight") == "lm_head.weight")
    #expect(
      try renamed("r layers.(\\d+).fc1 => layers.\\1.mlp.fc1", "decoder.layers.3.fc1.bias")
        == "decoder.layers.3.mlp.fc1.bias")
    #expect(try renamed("+ 1 queries\\.(\\d+) => layers.\\1.query", "queries.9") == "layers.10.query")
    #expect(try renamed("g a b => b c", "x.b.w") == "x.c.w")
    #expect(try renamed("r ^ => model.", "x.w") == "model.x.w")
    #expect(try renamed("r no => yes", "x.w") == nil)
  }

  /// As `str.replace` does it: the first occurrence, even where the pattern itself does not match.
  @Test func theFirstOccurrenceIsReplaced() throws {
    #expect(try renamed("r (?<!a\\.)n\\. => m.", "a.n.n.w") == "a.m.n.w")
  }

  @Test func scopes() throws {
    let row = "r ^vision_model\\.(.+) => \\1"
    #expect(try renamed(row, "model.tower.vision_model.x", scope: "tower") == "model.tower.x")
    #expect(try renamed(row, "tower.vision_model.x", scope: "tower") == "tower.x")
    #expect(try renamed(row, "other.vision_model.x", scope: "tower") == nil)
    #expect(try renamed(row, "model.vision_model.x", scope: ".") == "model.x")
    #expect(try renamed(row, "vision_model.x", scope: ".") == "x")
  }
}
