import Bytes
import Testing

@Suite struct WarningTests {
  @Test func aTerminalIsShownThreeNamesAReportAll() {
    let names = (1...180).map { "layer.\($0)" }
    let warning: Warning = "\(names.count) weights stay: \(names: names)"
    #expect(warning.brief == "180 weights stay: 'layer.1', 'layer.2', 'layer.3' and 177 more")
    #expect(warning.description.hasSuffix("'layer.179', 'layer.180'") && warning.names == names)
    let few: Warning = "kept: \(names: Array(names.prefix(3)))"
    #expect(few.brief == "kept: 'layer.1', 'layer.2', 'layer.3'" && few.brief == few.description)
  }

  @Test func oneForEachReason() {
    let warnings = Warning.grouped([
      "\(list: ["a.gguf"]): tensor \(names: ["x"]): odd", "something else",
      "\(list: ["b.gguf"]): tensor \(names: ["x"]): odd", "\(list: ["b.gguf"]): tensor \(names: ["y"]): even",
      "\(list: ["b.gguf"]): tensor \(names: ["z"]): odd",
    ])
    #expect(
      warnings == [
        "a.gguf, b.gguf: tensor 'x', 'z': odd", "something else", "b.gguf: tensor 'y': even",
      ])
  }

  @Test func aFailureThatStopsNothing() {
    let failure = Failure(.malformed, "is odd", file: "f", tensor: "t", offset: 3)
    #expect(Warning(failure).description == failure.description && Warning(failure).names == ["f", "t", "3"])
    let other = Failure(.malformed, "is odd", file: "f", tensor: "u", offset: 5)
    #expect(Warning.grouped([Warning(failure), Warning(other)]) == ["f: tensor 't', 'u': is odd, at offset 3, 5"])
  }

  @Test func namesCannotReachATerminalRaw() {
    let warning: Warning = "not copied: \(names: ["a\u{1b}[2J", String(repeating: "n", count: 5000)])"
    #expect(warning.brief.contains("'a\\u{1b}[2J'") && warning.description.utf8.count < 700)
  }

  @Test func partsAddUp() {
    let inner: Warning = "tensor \(names: ["t"]) is odd"
    let outer: Warning = "in \(list: ["A"]): \(inner)" + "; \(1 + 1) times"
    #expect(outer == "in A: tensor 't' is odd; 2 times" && outer.contains("is odd; 2"))
  }
}
