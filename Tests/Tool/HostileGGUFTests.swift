import Foundation
import JSON
import TestSupport
import Testing

/// Every bad GGUF file, given to the tool itself; the library's own tests hold each message to its cause.
@Suite struct HostileGGUFToolTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  /// Every verb and every kind of output for one row in three; they share the reader.
  @Test(arguments: HostileGGUF.files.enumerated().map { (number: $0.offset, file: $0.element) })
  func isRefused(number: Int, file: HostileFile) throws {
    let path = try directory.write("bad.gguf", file.bytes())
    let refusal = Refusal(status: file.exitCode, message: file.message, file: "bad.gguf", tensor: file.tensor)
    guard number % 3 == 0 else { return try refusal.check(path, in: directory, verbs: ["inspect", "quantize"]) }
    try refusal.check(path, in: directory)
    let good = try directory.write("good.gguf", file.twin())
    let out = directory.path("out.gguf")
    for arguments in [["convert", path, "-o", out], ["quantize", path, "-o", out, "--scheme", "q8_0"]] {
      refusal.check(try Tool.run(arguments + ["--json"]), arguments[0])
    }
    #expect(try directory.names == ["bad.gguf", "good.gguf"])
    let run = try Tool.run("diff", "--json", good, path)
    Refusal(status: file.exitCode, message: file.message, file: path, tensor: file.tensor).check(run, "diff")
  }

  @Test(arguments: HostileGGUF.files)
  func twinIsAccepted(_ file: HostileFile) throws {
    let path = try directory.write("good.gguf", file.twin())
    let run = try Tool.run("inspect", path)
    #expect(run.status == 0 && run.error.isEmpty, "\(run.error)")
    expectPrintable(run.output)
  }

  /// What does not begin as GGUF does is taken for something else, and refused as that.
  @Test(arguments: HostileGGUF.strangers)
  func strangerIsRefused(_ file: HostileFile) throws {
    let path = try directory.write("bad.gguf", file.bytes())
    try Refusal(status: file.exitCode, message: "bad.gguf: ").check(path, in: directory)
  }

  @Test(arguments: OddFile.gguf)
  func oddFileIsAccepted(_ file: OddFile) throws {
    let path = try directory.write("odd.gguf", file.bytes())
    // All but the one without anything in it are models.
    let isModel = !file.tensors.isEmpty
    for arguments in [["inspect", path], ["inspect", path, "--json", "--metadata"], ["verify", path]] {
      let run = try Tool.run(arguments)
      #expect(run.status == (isModel || arguments[0] == "inspect" ? 0 : 1), "\(arguments[0]): \(run.error)")
      #expect(run.errorLines.isEmpty, "\(arguments[0]): \(run.error)")
      expectPrintable(run.output + run.error)
      #expect(run.warnings.count == (file.warning == nil ? 0 : 1), "\(run.error)")
    }
    let copy = try Tool.run("convert", path, "-o", directory.path("copy.gguf"))
    if file.tensors.contains(where: { $0.utf8.count >= 64 }) {
      // The format allows it, ggml does not read it.
      #expect(copy.status == 65 && copy.error.contains("ggml reads 63 at most"))
    } else if !isModel {
      #expect(copy.status == 65 && copy.error.contains("metadata 'general.architecture' is missing"))
    } else {
      #expect(copy.status == 0, "\(copy.error)")
      #expect(try Tool.run("diff", path, directory.path("copy.gguf")).status == 0)
    }
  }

  @Test func truncation() throws {
    for cut in HostileGGUF.cuts where cut.bytes().count % 37 == 5 {
      let path = try directory.write("bad.gguf", cut.bytes())
      try Refusal(status: 65, message: "").check(path, in: directory)
    }
  }

  /// Files of both versions with the same content become the same output.
  @Test func versions() throws {
    var builder = GGUFBuilder.llama
    let three = try directory.write("model.gguf", builder.bytes)
    builder.version = 2
    try directory.write("old/model.gguf", making: builder.bytes)
    let two = directory.path("old/model.gguf")
    for out in [["-o", directory.path("%.gguf")], ["-o", directory.path("%")]] {
      for (name, path) in [("two", two), ("three", three)] {
        let run = try Tool.run(["convert", path] + out.map { $0.replacing("%", with: name) })
        #expect(run.status == 0, "\(run.error)")
      }
    }
    #expect(try directory.read("two.gguf") == directory.read("three.gguf"))
    #expect(try directory.read("two/model.safetensors") == directory.read("three/model.safetensors"))
    #expect(try directory.read("two/config.json") == directory.read("three/config.json"))
    // Nothing is added or lost on the way from GGUF to GGUF.
    #expect(try directory.read("three.gguf") == directory.read("model.gguf"))
  }

  // MARK: - Sizes

  /// More tensor data than 32 bits count, as a hole: sampled statistics, copies and their ends.
  @Test func moreThanFourGigabytes() throws {
    let builder = GGUFBuilder([.init("general.architecture", .string("test"))], [.init("w", 1, [65_536, 40_000], [])])
    let size = builder.dataStart + 65_536 * 40_000 * 2
    let path = try directory.writeSparse("large.gguf", builder.header, size: size)
    let run = try Tool.run("inspect", path, "--json")
    #expect(run.status == 0 && run.residentBytes < 64 << 20)
    #expect(parse(run.output)?["tensors"]?.array?.first?["bytes"]?.int == 65_536 * 40_000 * 2)
    let short = try directory.writeSparse("short.gguf", builder.header, size: size - 1)
    try Refusal(status: 65, message: "data is cut short", tensor: "w").check(short, in: directory)
  }

  /// Millions of empty strings, a gigabyte of small numbers: neither is held for the sake of eight of them.
  @Test func largeArrays() throws {
    let count = MemoryTests.isRelease ? 8_000_000 : 400_000
    let rows: [(String, GGUFBuilder.Value, Int)] = [
      ("strings", .array(of: 8, count: UInt64(count), []), 8 * count),
      ("bytes", .array(of: 0, count: 1 << 30, []), 1 << 30),
    ]
    for (name, value, size) in rows {
      let builder = GGUFBuilder([
        .init("general.architecture", .string("test")), .init("tokenizer.ggml.tokens", value),
      ])
      let path = try directory.writeSparse("\(name).gguf", builder.header, size: builder.header.count + size)
      for arguments in [["inspect", path], ["inspect", path, "--metadata"], ["verify", path]] {
        let run = try Tool.run(arguments)
        #expect(run.status == 0, "\(run.error)")
        #expect(run.residentBytes < 128 << 20, "\(name), \(arguments[0]): \(run.residentBytes >> 20) MiB")
      }
    }
  }
}
