import Foundation
import TestSupport
import Testing

/// Valid GGUF files that are no valid models.
@Suite struct HostileModelTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  private func run(_ arguments: [String]) throws -> Tool.Result {
    let run = try Tool.run(arguments, limit: 20)
    #expect(run.residentBytes < 256 << 20, "\(arguments[0]): \(run.residentBytes >> 20) MiB")
    return run
  }

  @Test(arguments: HostileGGUF.models)
  func isRefused(_ file: HostileFile) throws {
    let path = try directory.write("model.gguf", file.bytes())
    // It is a file that can be looked at.
    #expect(try run(["inspect", path]).status == 0)
    // Of a model only what makes it one is held to anything here.
    let isNameless = ["absent", "number", "bytes"].map { "general.architecture: \($0)" } + ["general.type: array"]
    #expect(try run(["verify", path]).status == (isNameless.contains("\(file)") ? 1 : 0))
    let before = try Snapshot(directory.path)
    let out = directory.path("out")
    for verb in ["convert", "quantize"] {
      let refusal = Refusal(status: file.exitCode, message: file.message, tensor: file.tensor)
      refusal.check(try run([verb, path, "-o", out, "--json"]), verb)
    }
    #expect(try Snapshot(directory.path) == before, "something was written")
    // Under its own names, what a model needs matters less; what it says is refused or done.
    for arguments in [
      ["convert", path, "-o", out + ".gguf"], ["quantize", path, "-o", out + ".gguf", "--scheme", "q4_k_m"],
    ] {
      let run = try run(arguments)
      #expect([0, 65, 69].contains(run.status), "\(run.error)")
      #expect((run.status == 0) == (try directory.names.contains("out.gguf")), "\(run.error)")
      if run.status == 0 {
        try directory.remove("out.gguf")
        try directory.remove("out.gguf.nibble-manifest.json")
      }
    }
  }

  /// More tokens than any vocabulary has, and more merges, are refused before they are read.
  @Test(
    .enabled(if: MemoryTests.isRelease, "walking over them takes a debug build a minute"),
    arguments: ["tokens", "merges"])
  func endlessVocabulary(_ name: String) throws {
    var builder = GGUFBuilder.llama
    builder.tensors = []
    if name == "merges" {
      builder.set("tokenizer.ggml.model", .string("gpt2"))
      builder.set("tokenizer.ggml.pre", .string("gpt-2"))
    }
    builder.set("tokenizer.ggml.\(name)", nil)
    builder.pairs.append(.init("tokenizer.ggml.\(name)", .array(of: 8, count: 5_000_000, [])))
    // The tensors follow 40 MB of zeros that take no room.
    let start = builder.header.count + 40_000_000
    builder.tensorCount = UInt64(GGUFBuilder.llama.tensors.count)
    let path = try directory.writeSparse("model.gguf", builder.header, size: start)
    // The data begins at a multiple of 32 in the whole file; sizes of its tensors are multiples too.
    let infos = Array(GGUFBuilder([], GGUFBuilder.llama.tensors).header.dropFirst(24))
    var bytes = infos + [UInt8](repeating: 0, count: (32 - (start + infos.count) % 32) % 32)
    for tensor in GGUFBuilder.llama.tensors { bytes += tensor.data }
    try directory.overwrite("model.gguf", at: start, with: bytes)
    let refusal = Refusal(status: 65, message: "metadata 'tokenizer.ggml.\(name)' has 5000000 \(name), allowed are")
    for verb in ["convert", "quantize"] {
      refusal.check(try run([verb, path, "-o", directory.path("out"), "--json"]), verb)
    }
    #expect(try directory.names == ["model.gguf"])
  }

  /// A model without a vocabulary that transformers' files could hold is converted without, and that is said.
  @Test(arguments: HostileGGUF.tokenizers)
  func withoutTokenizer(_ file: HostileFile) throws {
    let path = try directory.write("model.gguf", file.bytes())
    for (verb, name) in [("convert", "a"), ("quantize", "b")] {
      let run = try run([verb, path, "-o", directory.path(name)])
      #expect(run.status == 0 && run.errorLines.isEmpty, "\(run.error)")
      #expect(run.warnings.contains { $0.contains("the tokenizer is left out: ") && $0.contains(file.message) })
      #expect(!directory.exists("\(name)/tokenizer.json") && directory.exists("\(name)/config.json"))
    }
    // Of its twin nothing is left out.
    let twin = try directory.write("twin.gguf", file.twin())
    let run = try run(["convert", twin, "-o", directory.path("c")])
    #expect(run.status == 0 && run.warnings.isEmpty, "\(run.error)")
    #expect(directory.exists("c/tokenizer.json"))
  }

  @Test func theValidOne() throws {
    let path = try directory.write("model.gguf", GGUFBuilder.llama.bytes)
    for (verb, arguments) in [
      ("convert", ["-o", directory.path("a")]), ("quantize", ["-o", directory.path("b")]),
      ("convert", ["-o", directory.path("a.gguf")]),
      ("quantize", ["-o", directory.path("b.gguf"), "--scheme", "q8_0"]),
    ] {
      let run = try run([verb, path] + arguments)
      #expect(run.status == 0, "\(verb): \(run.error)")
    }
    // There and back.
    #expect(try run(["convert", directory.path("a"), "-o", directory.path("again.gguf")]).status == 0)
    #expect(try run(["diff", path, directory.path("again.gguf")]).status == 0)
  }

  /// A shape that promises more than the file holds: nothing from beyond its end gets into an output.
  @Test(arguments: [UInt32(0), 1, 8])
  func shapeThatLies(_ type: UInt32) throws {
    var builder = GGUFBuilder.llama
    builder.change("output.weight") {
      $0.type = type
      $0.dimensions = [32, 1_000_000]
      $0.data.removeLast(6000)
    }
    builder.tensors.swapAt(2, builder.tensors.count - 1)
    let path = try directory.write("model.gguf", builder.bytes)
    let refusal = Refusal(status: 65, message: "data is cut short", tensor: "output.weight")
    for options in [["-o", directory.path("out")], ["-o", directory.path("out.gguf"), "--scheme", "q8_0"]] {
      refusal.check(try run(["quantize", path, "--json"] + options), "quantize")
    }
    #expect(try directory.names == ["model.gguf"])
  }

  /// Values that are not finite are kept by `convert` and refused by `quantize`, which names the weight.
  private static let elements: [(UInt32, [UInt8])] = [
    (0, [0, 0, 0xC0, 0x7F]), (0, [0, 0, 0x80, 0xFF]), (1, [0, 0x7E]), (1, [0, 0x7C]), (30, [0x80, 0x7F]),
    (8, [0, 0x7C] + [UInt8](repeating: 1, count: 32)), (2, [0, 0x7E] + [UInt8](repeating: 0x19, count: 16)),
  ]

  @Test(arguments: elements)
  func notFinite(type: UInt32, element: [UInt8]) throws {
    let count = type == 8 || type == 2 ? 32 : 1
    var data: [UInt8] = []
    for _ in 0..<(32 * 64 / count - 1) { data += [UInt8](repeating: 0, count: element.count) }
    var builder = GGUFBuilder.llama
    builder.change("blk.0.ffn_up.weight") {
      $0.type = type
      $0.data = data + element
    }
    let path = try directory.write("model.gguf", builder.bytes)
    #expect(try run(["convert", path, "-o", directory.path("kept")]).status == 0)
    for options in [["-o", directory.path("out")], ["-o", directory.path("out.gguf"), "--scheme", "q4_1", "--pure"]] {
      let run = try run(["quantize", path, "--json", "--force-requantize"] + options)
      let name = options.count == 2 ? "model.layers.0.mlp.up_proj.weight" : "blk.0.ffn_up.weight"
      Refusal(status: 65, message: "element", file: "model.gguf", tensor: name).check(run, "quantize")
    }
    #expect(try directory.names == ["kept", "model.gguf"])
  }

  /// Any bytes are blocks of any type: statistics and conversions do not trap on them.
  @Test func randomBlocks() throws {
    var generator = SplitMix64(seed: 5)
    let blocks: [(type: UInt32, values: UInt64, bytes: Int)] = [
      (2, 32, 18), (3, 32, 20), (6, 32, 22), (7, 32, 24), (8, 32, 34), (10, 256, 84), (11, 256, 110), (12, 256, 144),
      (13, 256, 176), (14, 256, 210), (16, 256, 66), (17, 256, 74), (18, 256, 98), (19, 256, 50), (20, 32, 18),
      (21, 256, 110), (22, 256, 82), (23, 256, 136), (29, 256, 56), (34, 256, 54), (35, 256, 66), (39, 32, 17),
      (40, 64, 36), (41, 128, 18), (42, 64, 18),
    ]
    var builder = GGUFBuilder([.init("general.architecture", .string("test"))])
    for block in blocks {
      let data = (0..<64 * block.bytes).map { _ in UInt8.random(in: 0...255, using: &generator) }
      builder.tensors.append(.init("t\(block.type)", block.type, [8 * block.values, 8], data))
    }
    let path = try directory.write("model.gguf", builder.bytes)
    let statistics = try run(["inspect", path, "--stats"])
    #expect(statistics.status == 0, "\(statistics.error)")
    expectPrintable(statistics.output)
    for type in ["float32", "bfloat16"] {
      let run = try run(["convert", path, "-o", directory.path("\(type).gguf"), "--dtype", type])
      #expect(run.status == 0, "\(run.error)")
    }
  }
}
