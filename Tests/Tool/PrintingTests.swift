import Foundation
import JSON
import TestSupport
import Testing

/// Names from a file that try to move the cursor, forge a line, or hide.
@Suite struct PrintingTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  static let hostile = [
    "\u{1b}[31mred", "\u{1b}]8;;http://x\u{1b}\\link\u{1b}]8;;\u{1b}\\", "\u{1b}]52;c;aGk=\u{7}", "\u{1b}]0;title\u{7}",
    "\u{1b}P1;2q\u{1b}\\",
    "c1\u{9b}31m", "bell\u{7}", "back\u{8}space", "carriage\rreturn", "line\nnibble: error: forged", "x\nok: 1 tensors",
    "tab\tbed", "del\u{7f}",
    "nul\u{0}l", "\u{202e}reversed", "\u{2066}isolated\u{2069}", "zero\u{200b}width", "\u{feff}mark",
    "line\u{2028}separator", "quote\"d",
    "back\\slash", "%n%s%@", "\\(x)", "é", "e\u{301}", "😀", "\u{e0041}tag", "soft\u{ad}hyphen", "",
  ]

  private func write(_ names: [String], type: String = "U8") throws -> String {
    let tensors = names.map { SafetensorsBuilder.Tensor(escaped($0), type, [2], [1, 2]) }
    let builder = SafetensorsBuilder(
      tensors, metadata: "{\(names.map { "\"\(escaped($0))\":\"\(escaped($0))\"" }.joined(separator: ","))}")
    try directory.write("model/model.safetensors", making: builder.bytes)
    return directory.path("model")
  }

  /// As it stands between the quotes of a JSON string.
  private func escaped(_ text: String) -> String {
    text.unicodeScalars.map { scalar in
      switch scalar.value {
      case 0..<0x20: "\\u00" + (scalar.value < 16 ? "0" : "") + String(scalar.value, radix: 16)
      case 0x22, 0x5C: "\\" + String(scalar)
      default: String(scalar)
      }
    }.joined()
  }

  @Test(arguments: [
    ["inspect"], ["inspect", "--raw"], ["inspect", "--metadata"], ["inspect", "--stats"], ["verify"],
  ])
  func text(_ words: [String]) throws {
    let path = try write(Self.hostile)
    let run = try Tool.run(words + [path])
    #expect(run.status == 0)
    expectPrintable(run.output)
    expectPrintable(run.error)
    // One line for each name, whatever is in it.
    if words[0] == "inspect", !words.contains("--metadata") {
      #expect(run.output.split(separator: "\n", omittingEmptySubsequences: false).count == Self.hostile.count + 3)
      #expect(
        run.output.contains("\\u{1b}[31mred") && run.output.contains("%n%s%@")
          && run.output.contains("\\u{202e}reversed"))
    }
  }

  @Test func json() throws {
    let path = try write(Self.hostile)
    let run = try Tool.run("inspect", path, "--json")
    expectPrintable(run.output)
    let json = try #require(parse(run.output))
    let found = try #require(json["tensors"]?.array).map { Array(($0["name"]?.string ?? "?").utf8) }
    #expect(Set(found) == Set(Self.hostile.map { Array($0.utf8) }) && found.count == Self.hostile.count)
    let metadata = try #require(json["metadata"]?.object)
    #expect(metadata.count == Self.hostile.count)
  }

  /// What is written has the same names, byte for byte.
  @Test func names() throws {
    let path = try write(Self.hostile)
    let run = try Tool.run("convert", path, "-o", directory.path("out"))
    #expect(run.status == 0, "\(run.error)")
    expectPrintable(run.error)
    #expect(try Tool.run("verify", directory.path("out"), "--against", path).status == 0)
    func list(_ path: String) throws -> Set<[UInt8]> {
      let json = try #require(parse(Tool.run("inspect", path, "--json").output))
      return Set((json["tensors"]?.array ?? []).map { Array(($0["name"]?.string ?? "?").utf8) })
    }
    #expect(try list(path) == list(directory.path("out")))
  }

  /// In an error, too, and in what `verify` finds.
  @Test(arguments: hostile.filter { !$0.isEmpty })
  func error(_ name: String) throws {
    let header = "{\"\(escaped(name))\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,4]}}"
    try directory.write("bad/model.safetensors", making: SafetensorsBuilder.file(header, [1, 2, 3, 4]))
    let run = try Tool.run("inspect", directory.path("bad"), "--json")
    Refusal(status: 65, message: "").check(run, "inspect")
    expectPrintable(run.output)
    let found = try #require(parse(run.output)?["error"]?["tensor"]?.string)
    #expect(Array(found.utf8) == Array(name.utf8))
    let good = try write([name])
    try #require(try Tool.run("convert", good, "-o", directory.path("out")).status == 0)
    var bytes = try directory.read("out/model.safetensors")
    bytes[bytes.count - 1] ^= 1
    try directory.write("out/model.safetensors", bytes)
    for options in [[], ["--json"]] {
      let verified = try Tool.run(["verify", directory.path("out")] + options)
      #expect(verified.status == 1)
      expectPrintable(verified.output)
      if options.isEmpty {
        #expect(verified.output.split(separator: "\n").count == 2, "\(verified.output)")
      } else {
        let tensor = parse(verified.output)?["problems"]?.array?.first?["tensor"]?.string
        #expect(tensor.map { Array($0.utf8) } == Array(name.utf8))
      }
    }
  }

  @Test func veryLongName() throws {
    let name = String(repeating: "n", count: 1_000_000)
    try directory.write(
      "bad/model.safetensors",
      making: SafetensorsBuilder.file(
        "{\"\(name)\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,4]}}", [1, 2, 3, 4]))
    let run = try Tool.run("inspect", directory.path("bad"))
    #expect(run.status == 65 && run.error.utf8.count <= 4096 && run.error.contains("(1000000 bytes)"))
    let json = try Tool.run("inspect", directory.path("bad"), "--json")
    #expect(parse(json.output)?["error"]?["tensor"]?.string == name)
    let good = try Tool.run("inspect", write([name]))
    #expect(good.status == 0)
    #expect(good.output.split(separator: "\n").allSatisfy { $0.utf8.count <= 4096 })
  }

  @Test func paths() throws {
    for name in ["a\u{1b}[31m", "b\nnibble: error: forged", "c\u{202e}"] {
      let run = try Tool.run("inspect", directory.path(name))
      #expect(run.status == 66)
      expectPrintable(run.error)
      #expect(run.error.split(separator: "\n").count == 1)
      let model = try TestModel(layers: 1).write(to: directory, name)
      let listed = try Tool.run("inspect", model, "--json")
      #expect(parse(listed.output)?["path"]?.string == model)
      let written = try Tool.run("quantize", model, "-o", directory.path("out"), "--force")
      #expect(written.status == 0)
      expectPrintable(written.error)
    }
  }
}
