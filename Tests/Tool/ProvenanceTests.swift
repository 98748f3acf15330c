import Bytes
import Foundation
import JSON
import TestSupport
import Testing

/// What a manifest says of the run that made a model is shown, and the run is made again to verify.
@Suite struct ProvenanceTests {
  static let fixture = Tool.repository + "/fixtures/sql-llama"

  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  @discardableResult
  private func run(_ arguments: [String], _ status: Int32 = 0) throws -> Tool.Result {
    let run = try Tool.run(arguments)
    #expect(run.status == status, "\(arguments): \(run.error)")
    return run
  }

  private func made(_ name: String, _ arguments: [String], from source: String = fixture) throws -> String {
    let output = directory.path(name)
    try run([arguments[0], source, "-o", output, "--quiet"] + arguments.dropFirst())
    return output
  }

  @Test func shown() throws {
    let small = try made("small", ["quantize"])
    let wide = try made("wide", ["convert", "--dtype", "float32"], from: small)
    #expect(try run(["inspect", small]).output.hasSuffix("\nmade from sql-llama by nibble quantize (nf4)\n"))
    #expect(
      try run(["inspect", wide]).output.hasSuffix(
        "\nmade from small by nibble convert (float32), that from sql-llama\n"))
    let json = try JSONValue(parsing: Array(try run(["inspect", wide, "--json"]).output.utf8))
    #expect(json["provenance"]?["operation"]?.string == "convert")
    #expect(json["provenance"]?["origins"]?.array?.compactMap(\.string) == ["small", "sql-llama"])
    #expect(json["provenance"]?["options"]?["dtype"]?.string == "float32")
    // Nobody knows of this one.
    #expect(try !run(["inspect", Self.fixture]).output.contains("made"))
    #expect(
      try JSONValue(parsing: Array(try run(["inspect", Self.fixture, "--json"]).output.utf8))["provenance"] == nil)
  }

  /// A name out of a file reaches no terminal as it is.
  @Test func namesAreEscaped() throws {
    let small = try made("small", ["quantize"])
    try edit(small) { $0["source"] = .string("a\u{1b}[31m") }
    let text = try run(["inspect", small]).output
    #expect(text.contains("made from a\\u{1b}[31m by") && !text.contains("\u{1b}"))
  }

  private func edit(_ model: String, _ change: (inout JSONValue) -> Void) throws {
    let path = model + "/nibble-manifest.json"
    var manifest = try JSONValue(parsing: Array(try Data(contentsOf: URL(fileURLWithPath: path))))
    var options = try #require(manifest["options"])
    change(&options)
    manifest["options"] = options
    try Data(manifest.text(.indented).utf8).write(to: URL(fileURLWithPath: path))
    // It vouches for the manifest, whose digest is another now.
    try FileManager.default.removeItem(atPath: model + "/checksums.xxh128")
  }

  /// Every run that has one source, from sources of every kind.
  @Test(arguments: [
    ["quantize", "--keep", "*.down_proj", "--block-size", "128"],
    ["quantize", "--scheme", "fp4", "--no-double-quant", "--quant-storage", "bfloat16"],
    ["quantize", "--scheme", "mlx-q4"], ["convert", "--dtype", "float32"], ["convert"],
  ])
  func madeAgain(_ arguments: [String]) throws {
    let first = try made("first", arguments)
    try run(["verify", first, "--against", Self.fixture])
    let block = try made("block.gguf", ["quantize", "--scheme", "q4_0"])
    try run(["verify", block, "--against", Self.fixture])
    let second = try made("second", arguments, from: block)
    try run(["verify", second, "--against", block])
    guard arguments[0] == "convert" else { return }
    let small = try made("small", ["quantize"])
    let third = try made("third", arguments, from: small)
    try run(["verify", third, "--against", small])
  }

  /// A weight that was not quantized although the options say so.
  @Test func heldToItsOptions() throws {
    let kept = try made("kept", ["quantize", "--keep", "*.down_proj"])
    try edit(kept) { $0["keep"] = .array([]) }
    let run = try run(["verify", kept, "--against", Self.fixture], 1)
    #expect(
      run.output.contains(
        "tensor 'model.layers.0.mlp.down_proj.weight': is BF16 of shape [256, 512], but the manifest's options make U8 of "
          + "shape [65536, 1] of the weights in \(Self.fixture)\n"))
    let wide = try made("wide", ["convert", "--dtype", "float32"])
    try edit(wide) { $0["dtype"] = .string("keep") }
    #expect(try self.run(["verify", wide, "--against", Self.fixture], 1).output.contains("is F32 of shape"))
  }

  /// Types of GGUF too.
  @Test func mixtureIsHeldToItsOptions() throws {
    let model = try made("m.gguf", ["quantize", "--scheme", "q8_0"])
    let path = model + ".nibble-manifest.json"
    let text = try String(contentsOfFile: path, encoding: .utf8)
    try text.replacingOccurrences(of: "\"q8_0\"", with: "\"q4_0\"").write(
      toFile: path, atomically: true, encoding: .utf8)
    let run = try run(["verify", model, "--against", Self.fixture], 1)
    #expect(
      run.output.contains("is Q8_0 of shape [256, 256], but the manifest's options make Q4_0 of shape [256, 256]"))
  }

  /// The same bytes in other files, of weights that are quantized.
  @Test(arguments: ["nf4", "mlx-q4"])
  func copies(_ scheme: String) throws {
    let small = try made("small", ["quantize", "--scheme", scheme])
    let parts = try made("parts", ["split", "--max-shard-size", "1MB"], from: small)
    try run(["verify", parts, "--against", small])
    try run(["verify", try made("whole", ["join"], from: parts), "--against", parts])
    try run(["verify", parts, "--against", Self.fixture])
    // A byte that is not the same.
    let weights = small + "/model.safetensors"
    var bytes = try Data(contentsOf: URL(fileURLWithPath: weights))
    bytes[bytes.count - 1] ^= 1
    try bytes.write(to: URL(fileURLWithPath: weights))
    let run = try run(["verify", parts, "--against", small], 1)
    #expect(run.output.contains("1 byte is not that of \(small)"))
  }

  /// Options of another version, or of nobody.
  @Test func optionsThatAreNone() throws {
    let small = try made("small", ["quantize"])
    try edit(small) { $0["scheme"] = .string("nf5") }
    let run = try run(["verify", small, "--against", Self.fixture], 1)
    #expect(run.output.contains("checksums.xxh128: is missing\n") && run.output.contains("\n1 problem: "))
    #expect(
      run.output.contains("not checked: the options of the manifest: they are none of this version's 'quantize'\n"))
  }

  @Test func notFromOneSource() throws {
    let small = try made("small", ["quantize"])
    let path = small + "/nibble-manifest.json"
    let text = try String(contentsOfFile: path, encoding: .utf8)
    try text.replacingOccurrences(of: "\"operation\": \"quantize\"", with: "\"operation\": \"merge\"").write(
      toFile: path, atomically: true, encoding: .utf8)
    try FileManager.default.removeItem(atPath: small + "/checksums.xxh128")
    let run = try run(["verify", small, "--against", Self.fixture], 1)
    #expect(run.output.contains("checksums.xxh128: is missing\n") && run.output.contains("\n1 problem: "))
    #expect(
      run.output.contains("not checked: the comparison with \(Self.fixture): an adapter was merged into it\n"))
  }
}
