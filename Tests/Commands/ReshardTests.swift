import Bytes
import Checkpoints
import Comparison
import Foundation
import TestSupport
import Testing
import Verification
import Writing

@testable import Commands

/// The same tensors in other files.
@Suite struct ReshardTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  @discardableResult
  private func run(
    _ operation: Reshard.Operation, _ source: String, _ output: String, size: Int = .max, force: Bool = false,
    dryRun: Bool = false
  ) throws -> RunReport {
    var reshard = Reshard(operation)
    reshard.run.progress = .silent
    reshard.run.maxShardBytes = size
    reshard.run.force = force
    reshard.run.isDryRun = dryRun
    return try reshard(directory.path(source), output: directory.path(output)) { _ in }
  }

  private func expectVerified(_ name: String) throws {
    var verify = Verify()
    verify.progress = .silent
    let result = try verify(directory.path(name))
    #expect(result.isGood && result.notChecked.isEmpty && result.tensorsChecked > 0, "\(name): \(result)")
  }

  // MARK: - GGUF

  /// Names, keys and their order are those of llama-gguf-split.
  @Test func ggufSplit() throws {
    try directory.write("m.gguf", PlainGGUF.small.bytes)
    let report = try run(.split, "m.gguf", "out", size: 600)
    let small = PlainGGUF.small
    for (number, tensors) in [Array(small.tensors[..<3]), [small.tensors[3]]].enumerated() {
      var part = PlainGGUF(number == 0 ? small.pairs : [], tensors)
      part.pairs += [("split.no", .u16(UInt16(number))), ("split.tensors.count", .i32(4)), ("split.count", .u16(2))]
      #expect(try directory.read("out-0000\(number + 1)-of-00002.gguf") == part.bytes)
    }
    let manifest = "out-00001-of-00002.gguf.nibble-manifest.json"
    #expect(report.files == ["out-00001-of-00002.gguf", "out-00002-of-00002.gguf", manifest])
    #expect(try directory.names == ["m.gguf"] + report.files.sorted())
    try expectVerified("out-00002-of-00002.gguf")
  }

  /// A split may lie beside the model it was made of, each with its manifest.
  @Test func ggufThereAndBack() throws {
    try directory.write("source.gguf", PlainGGUF.small.bytes)
    try run(.join, "source.gguf", "m.gguf")
    for size in [1, 100, 600] {
      try run(.split, "m.gguf", "m", size: size)
      let first = try directory.names.first { $0.hasPrefix("m-00001-of-") } ?? ""
      try expectVerified(first)
      try expectVerified("m.gguf")
      try run(.join, first, "joined-\(size).gguf")
      #expect(try directory.read("joined-\(size).gguf") == PlainGGUF.small.bytes)
      for name in try directory.names where name.hasPrefix("m-") {
        try FileManager.default.removeItem(atPath: directory.path(name))
      }
    }
  }

  /// Another alignment is kept, and every part says so.
  @Test func ggufAlignment() throws {
    var model = PlainGGUF.small
    model.alignment = 64
    model.pairs.append(("general.alignment", .u32(64)))
    try directory.write("m.gguf", model.bytes)
    try run(.split, "m.gguf", "out", size: 1)
    try run(.join, "out-00003-of-00004.gguf", "joined")
    #expect(try directory.read("joined.gguf") == model.bytes)
  }

  @Test func everythingFits() throws {
    try directory.write("m.gguf", PlainGGUF.small.bytes)
    let report = try run(.split, "m.gguf", "out.gguf", size: 5000)
    #expect(report.warnings.contains { $0.contains("everything fits into one file") })
    #expect(try directory.read("out.gguf") == PlainGGUF.small.bytes)
  }

  // MARK: - Safetensors

  @Test func safetensorsThereAndBack() throws {
    var model = TestModel(layers: 4)
    model.sideFiles = [("tokenizer.json", "{ }"), ("README.md", "x")]
    _ = try model.write(to: directory, "source")
    try run(.join, "source", "model")
    let report = try run(.split, "model", "shards", size: 20_000)
    #expect(report.files.filter { $0.hasSuffix(".safetensors") }.count > 2)
    #expect(report.files.contains("model.safetensors.index.json"))
    for name in ["config.json", "tokenizer.json", "README.md"] {
      #expect(try directory.read("shards/\(name)") == directory.read("source/\(name)"))
    }
    try run(.join, "shards", "again")
    #expect(try Snapshot(ofOutput: directory.path("again")) == Snapshot(ofOutput: directory.path("model")))
    for name in ["model", "shards", "again"] { try expectVerified(name) }
    var diff = Diff()
    diff.progress = .silent
    #expect(try diff(directory.path("source"), directory.path("shards")).isEqual)
  }

  /// Codes and statistics are never apart, and stay in 4 bits.
  @Test(arguments: [true, false]) func fourBit(_ isDouble: Bool) throws {
    _ = try TestModel(layers: 3).write(to: directory, "source")
    var quantize = Quantize()
    quantize.usesDoubleQuantization = isDouble
    quantize.run.progress = .silent
    _ = try quantize(directory.path("source"), output: directory.path("nf4")) { _ in }
    let report = try run(.split, "nf4", "shards", size: 3000)
    let checkpoint = try StoredSafetensors(path: directory.path("shards"))
    let logical = try LogicalTensors(checkpoint)
    var weights = 0
    for case .packed(let weight) in logical.items {
      #expect(Set(weight.parts.map { checkpoint.location(of: $0).file }).count == 1)
      weights += 1
    }
    #expect(weights == 6)
    #expect(checkpoint.checkpoint.files.count > 3)
    #expect(report.parameters == logical.items.reduce(0) { $0 + logical.info($1).elementCount })
    try run(.join, "shards", "again")
    #expect(try directory.read("again/model.safetensors") == directory.read("nf4/model.safetensors"))
    #expect(try directory.read("again/config.json") == directory.read("nf4/config.json"))
    for name in ["shards", "again"] { try expectVerified(name) }
  }

  /// What was edited in stays, also where it is not what this tool writes by itself.
  @Test func metadataGoesAlong() throws {
    try directory.write(
      "m.safetensors", SafetensorsBuilder(SafetensorsBuilder.small.tensors, metadata: "{\"a\":\"b\"}").bytes)
    try run(.split, "m.safetensors", "shards", size: 8)
    let files = try StoredSafetensors(path: directory.path("shards")).checkpoint.files
    #expect(files.count == 2 && files.allSatisfy { $0.metadata.map(\.key) == ["a"] })
  }

  // MARK: - Refusals

  @Test func refused() throws {
    try directory.write("m.gguf", PlainGGUF.small.bytes)
    try directory.write("cut.gguf", Array(PlainGGUF.small.bytes.dropLast(40)))
    try directory.write("cut.safetensors", Array(SafetensorsBuilder.small.bytes.dropLast()))
    try directory.write("small.safetensors", SafetensorsBuilder.small.bytes)
    try directory.write("taken", [1])
    try directory.write("taken.gguf", [1])
    _ = try directory.makeDirectory("empty")
    try run(.split, "m.gguf", "s", size: 1)
    try FileManager.default.removeItem(atPath: directory.path("s-00002-of-00004.gguf"))
    let before = try Snapshot(directory.path)
    let rows: [(source: String, output: String, code: Failure.Code, message: String)] = [
      ("missing", "out", .missing, "No such file"), ("empty", "out", .missing, "holds no safetensors"),
      ("cut.gguf", "out", .malformed, "cut short"), ("cut.safetensors", "out", .malformed, "cut short"),
      ("m.gguf", "taken", .cannotCreate, "already exists (use --force"), ("m.gguf", "m", .cannotCreate, "input itself"),
      ("small.safetensors", "taken", .cannotCreate, "already exists and is a regular file"),
      ("small.safetensors", "x.gguf", .usage, "'nibble convert' makes one"),
      ("s-00001-of-00004.gguf", "out", .missing, "is one of 4"),
      ("m.gguf", "empty", .cannotCreate, "is a directory; name the model in it"),
      ("m.gguf", "out/", .cannotCreate, "is a directory; name the model in it"),
      ("m.gguf", "no/such/out", .cannotCreate, "cannot open the parent"),
    ]
    for row in rows {
      for operation in [Reshard.Operation.split, .join] {
        let error = #expect(throws: Failure.self, "\(row)") { try run(operation, row.source, row.output) }
        #expect(
          error?.code == row.code && error?.message.contains(row.message) == true,
          "\(row): \(String(describing: error))")
      }
    }
    #expect(try run(.split, "m.gguf", "out", size: 1, dryRun: true).files.count == 5)
    #expect(try Snapshot(directory.path) == before)
  }
}
