import Bytes
import GGUF
import JSON
import Testing

@testable import Tokenizers

/// Chat templates between a directory and GGUF, whatever they are called.
struct ChatTemplateTests {
  private func templates(_ pairs: [(String, String)]) throws -> ChatTemplates {
    try ChatTemplates(GGUFMetadata(pairs.map { (key: $0.0, value: .text($0.1)) }))
  }

  @Test(arguments: [
    "../../x", "/etc/x", "..", ".", ".hidden", "a/b", "a\\b", "", "file", "c:d", "\u{202e}gnp", "a\u{0}b", "a\nb", "a?",
    String(repeating: "n", count: 201),
  ])
  func namesThatAreNoFiles(_ name: String) throws {
    let found = try templates([
      ("tokenizer.chat_template", "main"), ("tokenizer.chat_template.\(name)", "odd"),
      ("tokenizer.chat_template.rag", "plain"),
    ])
    #expect(found.files == nil && found.warnings.isEmpty)
    #expect(
      found.list == [
        ["name": "default", "template": "main"], ["name": .string(name), "template": "odd"],
        ["name": "rag", "template": "plain"],
      ])
  }

  @Test(arguments: [
    "x", "tool_use", "a b", "a.b", "é", "...".replacing(".", with: "x."), "x.jinja", "files", "CON",
    String(repeating: "n", count: 200),
  ])
  func namesThatAre(_ name: String) throws {
    let found = try templates([("tokenizer.chat_template", "main"), ("tokenizer.chat_template.\(name)", "other")])
    let files = try #require(found.files)
    #expect(files.map(\.name) == ["chat_template.jinja", "additional_chat_templates/\(name).jinja"])
    #expect(files.map(\.contents) == [Array("main".utf8), Array("other".utf8)])
    #expect(files.allSatisfy { InputDirectory.isPlainPath($0.name) })
  }

  /// Where files cannot be told apart by case there would be one.
  @Test func namesThatDifferInCase() throws {
    #expect(try templates([("tokenizer.chat_template.RAG", "1"), ("tokenizer.chat_template.rag", "2")]).files == nil)
    #expect(
      try templates([("tokenizer.chat_template.RAG", "1"), ("tokenizer.chat_template.rig", "2")]).files?.count == 2)
  }

  @Test func twoMainOnes() throws {
    let same = try templates([("tokenizer.chat_template", "1"), ("tokenizer.chat_template.default", "1")])
    #expect(same.templates.count == 1 && same.warnings.isEmpty)
    let other = try templates([("tokenizer.chat_template", "1"), ("tokenizer.chat_template.default", "2")])
    #expect(other.templates.map(\.name) == ["default", "default_2"] && other.warnings.count == 1)
  }

  /// Work grows with their number, not with its square: half a minute's worth of comparing pairs otherwise.
  @Test func many() throws {
    let count = 100_000
    let found = try templates((0..<count).map { ("tokenizer.chat_template.a-\($0)", "t") })
    #expect(found.templates.count == count && found.files?.count == count)
    var again = found
    let pairs = again.pairs()
    #expect(pairs.count == count + 1 && pairs[7].key == "tokenizer.chat_template.a_7" && again.warnings.count == 1)
  }

  /// Two spellings of one character are two names.
  @Test func normalization() throws {
    let found = try templates([("tokenizer.chat_template.\u{e9}", "1"), ("tokenizer.chat_template.e\u{301}", "2")])
    #expect(found.templates.map(\.text) == ["1", "2"] && found.files == nil)
  }

  // MARK: - Of a directory

  private func written(_ files: [String: String]) throws -> GGUFTokenizer {
    try ggufChatTemplates(fileNames: Array(files.keys)) { name in files[name].map { Array($0.utf8) } }
  }

  private func keys(_ files: [String: String]) throws -> [String] { try written(files).pairs.map(\.key) }

  @Test func files() throws {
    let main = "tokenizer.chat_template"
    #expect(try keys([:]) == [])
    #expect(try keys(["chat_template.jinja": "m"]) == [main])
    #expect(
      try keys([
        "chat_template.jinja": "m", "additional_chat_templates/b.jinja": "b", "additional_chat_templates/a.jinja": "a",
        "additional_chat_templates/c.txt": "c", "additional_chat_templates/d/e.jinja": "e", "x/f.jinja": "f",
      ]) == [main + ".a", main + ".b", main + "s", main])
    #expect(
      try keys(["chat_template.json": #"{"chat_template": [{"name": "x", "template": "y"}]}"#]) == [
        main + ".x", main + "s",
      ])
    // The older form counts where there is no other.
    #expect(try keys(["chat_template.json": #"{"chat_template": "old"}"#, "chat_template.jinja": "m"]) == [main])
    #expect(
      try written(["chat_template.json": #"{"chat_template": "o"}"#, "chat_template.jinja": "m"]).pairs[0].value.text
        == "m")
    #expect(throws: Failure.self) { try keys(["chat_template.json": "[]"]) }
  }

  /// As in a dictionary of Python's; entries without a template or a name say nothing.
  @Test func lists() throws {
    func list(_ text: String) throws -> GGUFTokenizer {
      try written(["tokenizer_config.json": #"{"chat_template": \#(text)}"#])
    }
    let twice = try list(#"[{"name": "x", "template": "1"}, {"name": "x", "template": "2"}]"#)
    #expect(twice.pairs.map(\.key) == ["tokenizer.chat_template.x", "tokenizer.chat_templates"])
    #expect(twice.pairs[0].value.text == "2" && twice.warnings.isEmpty)
    for odd in [#"[{"name": "x"}]"#, "[]", "null", "7", "{}", #"[{"name": "x", "template": null}]"#, "[null]"] {
      #expect(try list(odd).pairs.isEmpty, "\(odd)")
    }
    let nameless = try list(#"[{"template": "1"}, {"name": "y", "template": "2"}]"#)
    #expect(nameless.pairs.map(\.key) == ["tokenizer.chat_template.y", "tokenizer.chat_templates"])
    #expect(nameless.warnings.count == 1)
  }
}
