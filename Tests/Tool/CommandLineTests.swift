import Foundation
import JSON
import TestSupport
import Testing

/// Words of the command line: help, mistakes, and the ways to write the same thing.
@Suite struct CommandLineTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  static let verbs = ["quantize", "inspect", "verify", "convert"]

  // MARK: - Help

  @Test(arguments: [
    [], ["quantize"], ["inspect"], ["verify"], ["diff"], ["convert"], ["merge"], ["extract-lora"], ["fit"],
    ["edit"], ["split"], ["join"],
  ])
  func helpFitsATerminal(_ verb: [String]) throws {
    let run = try Tool.run(verb + ["--help"])
    #expect(run.status == 0 && run.error == "")
    let lines = run.output.split(separator: "\n", omittingEmptySubsequences: false)
    #expect(lines.count <= 45, "\(lines.count) lines")
    for line in lines { #expect(line.count <= 78, "\(line)") }
    let example = try #require(lines.firstIndex(of: "Example:"))
    #expect(lines[example + 1].hasPrefix("  nibble \(verb.first ?? "quantize") "))
    #expect(try Tool.run(verb + ["-h"]).output == run.output)
    // XXH3 finds damage; nothing here protects against an attacker.
    for word in ["tamper", "secure", "authentic"] { #expect(!run.output.lowercased().contains(word)) }
  }

  /// Every option that has a default says so.
  @Test(arguments: [
    (
      "quantize",
      [
        "--scheme", "--block-size", "--no-double-quant", "--quant-storage", "--compute-dtype", "--target",
        "--max-shard-size", "--jobs",
      ]
    ),
    ("convert", ["--dtype", "--max-shard-size", "--jobs"]),
    ("split", ["--max-shard-size", "--jobs"]), ("join", ["--jobs"]),
    (
      "merge",
      [
        "--weight", "--combine", "--density", "--seed", "--rounding", "--expert-layout", "--dtype", "--max-shard-size",
        "--jobs",
      ]
    ), ("inspect", ["--jobs"]), ("verify", ["--jobs"]),
    ("diff", ["--tensor", "--jobs"]), ("extract-lora", ["--dtype", "--target", "--save-rest", "--jobs"]),
    (
      "fit",
      [
        "--gpus", "--lora-rank", "--target-modules", "--batch", "--seq-len", "--optimizer", "--zero-stage",
        "--no-gradient-checkpointing",
      ]
    ),
  ])
  func helpNamesDefaults(_ verb: String, _ options: [String]) throws {
    let text = try Tool.run(verb, "--help").output
    for option in options {
      let start = try #require(text.range(of: "  \(option)"), "\(option)")
      let rest = text[start.upperBound...]
      let entry = rest[..<(rest.range(of: "\n  --")?.lowerBound ?? rest.endIndex)]
      #expect(entry.contains("default"), "\(option): \(entry)")
    }
  }

  @Test func nothingIsAnsweredWithHelp() throws {
    let run = try Tool.run()
    #expect(run.status == 2 && run.output == "")
    #expect(run.error == (try Tool.run("--help").output))
  }

  @Test func version() throws {
    let run = try Tool.run("--version")
    #expect(run.status == 0 && run.error == "")
    #expect(
      run.output.wholeMatch(of: /nibble \d+\.\d+\.\d+ \(Swift 6\.\d+( or newer)?, SIMD [A-Z0-9_]+\)\n/) != nil,
      "\(run.output)")
  }

  @Test(arguments: [
    "quantize", "merge", "extract-lora", "inspect", "verify", "diff", "convert", "edit", "split", "join", "fit",
  ])
  func shortForms(_ verb: String) throws {
    let help = try Tool.run("help", verb)
    #expect(try help.status == 0 && help.error == "" && help.output == Tool.run(verb, "--help").output)
    for words in ["  -q, --quiet", "  --verbose"] { #expect(help.output.contains(words)) }
    let version = try Tool.run(verb, "-V")
    #expect(try version.status == 0 && version.output == Tool.run("-V").output)
    #expect(version.output == (try Tool.run("--version").output))
  }

  @Test func quietAndVerbose() throws {
    var model = TestModel(layers: 1)
    model.sideFiles = (1...5).map { ("f\($0).py", "") }
    let path = try model.write(to: directory)
    func run(_ options: String...) throws -> Tool.Result {
      try Tool.run(["quantize", path, "-o", directory.path("out"), "--dry-run"] + options)
    }
    for option in ["-q", "--quiet"] { #expect(try run(option).error == "") }
    let brief = "copied without being read: 'f1.py', 'f2.py', 'f3.py' and 2 more, code that"
    #expect(try run().warnings.contains { $0.contains(brief) })
    let all = "copied without being read: 'f1.py', 'f2.py', 'f3.py', 'f4.py', 'f5.py', code that"
    #expect(try run("--verbose").warnings.contains { $0.contains(all) })
    let json = try #require(parse(run("--json").output))
    #expect(json["warnings"]?.array?.contains { $0.string?.contains(all) == true } == true)
    // In front of the verb, too.
    let leading = try Tool.run("-q", "--json", "inspect", path)
    #expect(try leading.status == 0 && leading.output == Tool.run("inspect", path, "--json").output)
  }

  // MARK: - Mistakes

  struct Mistake: Sendable, CustomTestStringConvertible {
    var words: [String]
    var message: String
    var testDescription: String { words.joined(separator: " ") }
    init(_ words: String..., says message: String) {
      self.words = words
      self.message = message
    }
  }

  static let mistakes = [
    Mistake("quantise", says: "unknown verb 'quantise', did you mean 'quantize'?"),
    Mistake("verfiy", "m", says: "unknown verb 'verfiy', did you mean 'verify'?"),
    Mistake("xyzzy", says: "unknown verb 'xyzzy'; see 'nibble --help'"),
    Mistake("quantize", "m", "-o", "o", "--shceme", "nf4", says: "unknown option '--shceme', did you mean '--scheme'?"),
    Mistake("inspect", "m", "--jsno", says: "unknown option '--jsno', did you mean '--json'?"),
    Mistake("convert", "m", "-o", "o", "--dtpye=keep", says: "unknown option '--dtpye', did you mean '--dtype'?"),
    Mistake("verify", "m", "--zzzzzzzz", says: "unknown option '--zzzzzzzz'; see 'nibble verify --help'"),
    Mistake("inspect", "m", "-x", says: "unknown option '-x'"),
    Mistake("quantize", "m", "-o", says: "option '-o' needs a value: -o OUT"),
    Mistake("quantize", "m", "--output=", says: "option '--output' needs a value"),
    Mistake("quantize", "m", "-o", "--json", says: "option '-o' needs a value"),
    Mistake("quantize", "m", "-o", "o", "--keep", "--json", says: "option '--keep' needs a value"),
    Mistake("inspect", "m", "--json=yes", says: "option '--json' takes no value"),
    Mistake(
      "quantize", "m", "-o", "o", "--block-size", "63", says: "63 is not one of 32, 64, 128, 256, 512, 1024, 2048, 4096"
    ),
    Mistake("quantize", "m", "-o", "o", "--block-size", "8192", says: "8192 is not one of"),
    Mistake("quantize", "m", "-o", "o", "--block-size", "x", says: "'x' is not a number"),
    Mistake(
      "quantize", "m", "-o", "o", "--scheme", "nf5",
      says:
        "'nf5' is not one of nf4, fp4, mlx-q2, mlx-q3, mlx-q4, mlx-q5, mlx-q6, mlx-q8, mlx-mxfp4, fp8-channel, "
        + "fp8-block, w4a16, nvfp4a16, mxfp4a16, mxfp4; did you mean 'nf4'?"),
    Mistake("quantize", "m", "-o", "o", "--target", "transformers-3", says: "did you mean 'transformers-"),
    Mistake("quantize", "m", "-o", "o", "--compute-dtype", "float64", says: "is not one of bfloat16, float16, float32"),
    Mistake("convert", "m", "-o", "o", "--dtype", "NF4", says: "is not one of keep, bfloat16, float16, float32"),
    Mistake("convert", "m", "-o", "o", "--max-shard-size", "5GX", says: "'5GX' is not a size such as 5GB or 512MiB"),
    Mistake("convert", "m", "-o", "o", "--max-shard-size", "0", says: "is not a size"),
    Mistake("convert", "m", "-o", "o", "--max-shard-size", "-5GB", says: "is not a size"),
    Mistake("convert", "m", "-o", "o", "--max-shard-size", "99999999999TB", says: "is not a size"),
    Mistake("split", "m", "-o", "o", "--max-shard-size", "5", says: "'5' has no unit: 5 bytes (5B)? 5GiB?"),
    Mistake("quantize", "m", "-o", "o", "--max-shard-size", "1048575", says: "'1048575' has no unit: "),
    Mistake("merge", "m", "a", "-o", "o", "--max-shard-size=4.5", says: "4.5GiB?"),
    Mistake("fit", "m", "--gpus", "3x24", says: "option '--gpus': '24' has no unit: 24 bytes (24B)? 24GiB?"),
    Mistake("fit", "m", "--gpus", "24576", says: "24576MiB?"),
    Mistake(
      "convert", "m", "-o", "o", "--base", "b", "--config", "c", says: "'--base' and '--config' exclude each other"),
    Mistake("help", "quantise", says: "unknown verb 'quantise', did you mean 'quantize'?"),
    Mistake("help", "quantize", "m", says: "unexpected argument 'm'"),
    Mistake("diff", "a", "b", "--top", "0", says: "option '--top': '0' is not a number from 1 to"),
    Mistake("inspect", "m", "--jobs", "0", says: "'0' is not a number from 1 to"),
    Mistake("inspect", "m", "--jobs", "99999999999999999999", says: "is not a number from 1 to"),
    Mistake("quantize", "m", "-o", "o", "--scheme", "nf4", "--scheme", "fp4", says: "option '--scheme' is given twice"),
    Mistake("inspect", says: "PATH is missing"),
    Mistake("diff", says: "A is missing"),
    Mistake("diff", "a", says: "B is missing; see 'nibble diff --help'"),
    Mistake("diff", "a", "b", "c", says: "unexpected argument 'c'"),
    Mistake("diff", "a", "b", "--tensors", "x", says: "unknown option '--tensors', did you mean '--tensor'?"),
    Mistake("dfif", "a", "b", says: "unknown verb 'dfif', did you mean 'diff'?"),
    Mistake("inspect", "a", "b", says: "unexpected argument 'b'"),
    Mistake("quantize", "m", says: "option '-o' is missing"),
    Mistake("quantize", "-o", "o", says: "SOURCE is missing"),
    Mistake("inspect", "m", "--against", "x", says: "option '--against' goes with '--stats'"),
    Mistake("inspect", "m", "--stats", "--raw", "--against", "x", says: "exclude each other"),
    Mistake("inspect", "m", "--\u{1b}[31mjson", says: "unknown option '--\\u{1b}[31mjson'"),
  ]

  @Test(arguments: mistakes)
  func mistake(_ row: Mistake) throws {
    let run = try Tool.run(row.words)
    #expect(run.status == 2)
    #expect(
      run.errorLines.count == 1 && run.error.hasPrefix("nibble: error: ") && run.error.contains(row.message),
      "\(run.error)")
    #expect(run.warnings.isEmpty)
    expectPrintable(run.error)
    if !row.words.contains("--json") { #expect(run.output == "") }
  }

  @Test func mistakesAreToldAsJSONToo() throws {
    let run = try Tool.run("inspect", "m", "--jsno", "--json")
    Refusal(status: 2, message: "unknown option '--jsno'").check(run, "inspect")
  }

  @Test func missingInput() throws {
    for verb in Self.verbs {
      let options = ["quantize", "convert"].contains(verb) ? ["-o", directory.path("out")] : []
      let run = try Tool.run([verb, directory.path("no\u{1b}where"), "--json"] + options)
      Refusal(status: 66, message: "no\\u{1b}where: ").check(run, verb)
    }
    #expect(try directory.names.isEmpty)
  }

  // MARK: - The same thing in other words

  @Test func optionsStandAnywhere() throws {
    let model = try TestModel(layers: 1).write(to: directory)
    let out = directory.path("out")
    let forms = [
      ["quantize", model, "-o", out, "--scheme", "fp4", "--block-size", "128", "--dry-run", "--json"],
      ["quantize", "--json", "--scheme=fp4", "--dry-run", model, "--block-size=128", "--output", out],
      ["quantize", "--output=\(out)", "--block-size", "128", "--json", "--scheme", "fp4", "--dry-run", "--", model],
    ]
    let runs = try forms.map { try Tool.run($0) }
    for run in runs { #expect(run.status == 0 && run.output == runs[0].output, "\(run.error)") }
    #expect(try directory.names == ["model"])
  }

  /// Behind `--` nothing is an option.
  @Test func operandsLikeOptions() throws {
    for name in ["--raw", "--help", "-h", "--version", "--json"] {
      let run = try Tool.run(["inspect", "--", name])
      #expect(run.status == 66, "\(name): \(run.error)")
      #expect(run.output == "" && run.error.contains("nibble: error: \(name): "), "\(run.error)")
    }
  }

  @Test(arguments: [
    ("5GB", 5_000_000_000), ("5GiB", 5 << 30), ("1.5kB", 1500), ("4096B", 4096), ("512MiB", 512 << 20), ("1b", 1),
    ("1048576", 1 << 20), ("5000000000", 5_000_000_000),
  ])
  func sizes(_ text: String, _ bytes: Int) throws {
    var model = TestModel(layers: 1)
    model.config = nil
    let path = try model.write(to: directory)
    let run = try Tool.run("convert", path, "-o", directory.path("out"), "--max-shard-size", text, "--quiet")
    #expect(run.status == 0, "\(run.error)")
    let manifest = try #require(parse(String(decoding: directory.read("out/nibble-manifest.json"), as: UTF8.self)))
    #expect(manifest["options"]?["maxShardSize"]?.int == bytes)
  }

  /// One linear layer, in a directory whose name is given.
  @Test(arguments: ["-x", "--raw", "with space", "new\nline", String(repeating: "n", count: 200), "é\u{202e}"])
  func pathText(_ name: String) throws {
    let model = try TestModel(layers: 1).write(to: directory, name)
    let run = try Tool.run("quantize", "--", model, "-o", directory.path("out"))
    // The option behind `--` is an operand.
    #expect(run.status == 2)
    // The input may be called anything; a new name has no line break in it.
    let out = directory.path("out-\(name.prefix(100).replacing("\n", with: " "))")
    let good = try Tool.run("quantize", "-o", out, "--", model)
    #expect(good.status == 0, "\(good.error)")
    expectPrintable(good.output)
    expectPrintable(good.error)
    #expect(try Tool.run("verify", out).status == 0)
  }
}
