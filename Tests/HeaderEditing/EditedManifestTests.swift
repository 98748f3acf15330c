import Bytes
import Commands
import Foundation
import TestSupport
import Testing
import Verification

@testable import HeaderEditing

/// Edits of files that a manifest vouches for, and of safetensors.
@Suite struct EditedManifestTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  @discardableResult
  private func edit(_ path: String, set: [String] = [], remove: [String] = []) throws -> Edit.Report {
    var edit = Edit()
    edit.settings = set
    edit.removals = remove
    edit.progress = .silent
    return try edit(path) { _ in }
  }

  private func problems(_ path: String) throws -> [Verify.Problem] {
    var verify = Verify()
    verify.progress = .silent
    let result = try verify(path)
    #expect(result.tensorsChecked > 0)
    return result.problems
  }

  /// A GGUF model with its manifest.
  private func gguf() throws -> String {
    let source = try directory.write("source.gguf", PlainGGUF.small.bytes)
    return try join(source, "m.gguf")
  }

  private func join(_ source: String, _ output: String) throws -> String {
    var join = Reshard(.join)
    join.run.progress = .silent
    join.run.sha256 = true
    _ = try join(source, output: directory.path(output)) { _ in }
    return directory.path(output)
  }

  private static let metadata = "{\"format\":\"pt\",\"who\":\"me\"}"

  /// A directory with one safetensors file, its manifest and its list for xxhsum.
  private func safetensors() throws -> String {
    _ = try directory.makeDirectory("source")
    try directory.write(
      "source/model.safetensors", SafetensorsBuilder(SafetensorsBuilder.small.tensors, metadata: Self.metadata).bytes)
    try directory.write("source/config.json", Array("{}".utf8))
    return try join(directory.path("source"), "out")
  }

  @Test(arguments: ["tuny", "a name that is longer than all the padding there is"]) func manifestOfGGUF(_ name: String)
    throws
  {
    let path = try gguf()
    let report = try edit(path, set: ["general.name=\(name)"])
    #expect(report.isHeaderOnly == (name == "tuny") && report.manifest == "m.gguf.nibble-manifest.json")
    var expected = PlainGGUF.small
    expected["general.name"] = .text(name)
    #expect(try directory.read("m.gguf") == expected.bytes)
    #expect(try problems(path).isEmpty)
    // It still sees what it saw before.
    var bytes = expected.bytes
    bytes[bytes.count - 100] ^= 1
    try directory.write("m.gguf", bytes)
    #expect(try problems(path).map(\.tensor) == ["output.weight"])
    #expect(try directory.names == ["m.gguf", "m.gguf.nibble-manifest.json", "source.gguf"])
  }

  @Test(arguments: [1, 5000]) func manifestOfSafetensors(_ length: Int) throws {
    let out = try safetensors()
    let data = try directory.read("out/model.safetensors").suffix(22)
    let report = try edit(
      out + "/model.safetensors", set: ["note=\(String(repeating: "é", count: length))"], remove: ["who"])
    #expect(report.isHeaderOnly == (length == 1) && report.manifest == "nibble-manifest.json")
    #expect(try problems(out).isEmpty)
    #expect(try directory.read("out/model.safetensors").suffix(22) == data)
    var inspect = Inspect()
    inspect.wantsMetadata = true
    #expect(try inspect(out).metadataText.contains("note"))
    // The layout is that of a manifest that was written at once.
    let text = String(decoding: try directory.read("out/nibble-manifest.json"), as: UTF8.self)
    try edit(out + "/model.safetensors", set: ["who=me"], remove: ["note"])
    let again = try join(directory.path("source"), "again")
    if length == 1 {
      let fresh = try String(contentsOfFile: again + "/nibble-manifest.json", encoding: .utf8)
      #expect(try String(contentsOfFile: out + "/nibble-manifest.json", encoding: .utf8) == fresh)
    }
    #expect(text.contains("\n    \"model.safetensors\": {\"size\": "))
  }

  /// One shard's data moves, the others' does not.
  @Test func shard() throws {
    _ = try TestModel(layers: 3).write(to: directory, "source")
    var split = Reshard(.split)
    split.run.progress = .silent
    split.run.maxShardBytes = 20_000
    let files = try split(directory.path("source"), output: directory.path("out")) { _ in }.files
    let shards = files.filter { $0.hasSuffix(".safetensors") }
    try #require(shards.count > 2)
    let before = try shards.map { try directory.read("out/\($0)") }
    let report = try edit(directory.path("out/\(shards[1])"), set: ["k=\(String(repeating: "v", count: 5000))"])
    #expect(!report.isHeaderOnly && report.bytes == before[1].count + 4096)
    let after = try shards.map { try directory.read("out/\($0)") }
    for index in shards.indices where index != 1 { #expect(after[index] == before[index]) }
    #expect(after[1].dropFirst(8192).elementsEqual(before[1].dropFirst(4096)))
    #expect(try problems(directory.path("out")).isEmpty)
  }

  /// Damage is not to be covered up by a new digest.
  @Test(arguments: ["tuny", "a name that is longer than all the padding there is"]) func damageBefore(_ name: String)
    throws
  {
    let path = try gguf()
    var bytes = try directory.read("m.gguf")
    bytes[bytes.count - 1] ^= 1
    try directory.write("m.gguf", bytes)
    let before = try Snapshot(directory.path)
    let error = #expect(throws: Failure.self) { try edit(path, set: ["general.name=\(name)"]) }
    #expect(error?.code == .malformed && error?.message.contains("is not what 'm.gguf.nibble-manifest") == true)
    #expect(try Snapshot(directory.path) == before)
  }

  @Test func damagedManifest() throws {
    let path = try gguf()
    try directory.write("m.gguf.nibble-manifest.json", [0x7B])
    let error = #expect(throws: Failure.self) { try edit(path, set: ["general.name=tuny"]) }
    #expect(error?.code == .malformed && error?.file == "m.gguf.nibble-manifest.json")
    #expect(try directory.read("m.gguf") == PlainGGUF.small.bytes)
  }

  // MARK: - Safetensors without a manifest

  /// Whatever else stands in the header stays as it is written.
  @Test func onlyMetadataChanges() throws {
    let members = "\"a\" : {\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2],\"x\":1}"
    for (header, expected) in [
      ("{ \(members)}        ", "{ \"__metadata__\":{\"k\":\"v\"},\(members)}"),
      ("{\"__metadata__\": null, \(members) }", "{\"__metadata__\": {\"k\":\"v\"}, \(members) }"),
      ("{\(members), \"__metadata__\":{ \"z\":\"\" }}", "{\(members), \"__metadata__\":{\"z\":\"\",\"k\":\"v\"}}"),
    ] {
      let path = try directory.write("m.safetensors", SafetensorsBuilder.file(header, [1, 2]))
      let report = try edit(path, set: ["k=v"])
      let bytes = try directory.read("m.safetensors")
      #expect(!report.isHeaderOnly && bytes.suffix(2) == [1, 2] && (bytes.count - 2) % 8 == 0)
      let json = String(decoding: bytes[8..<bytes.count - 2], as: UTF8.self)
      #expect(json.hasPrefix(expected) && json.dropFirst(expected.count).allSatisfy { $0 == " " }, "\(json)")
    }
  }

  @Test func emptyFile() throws {
    let path = try directory.write("m.safetensors", SafetensorsBuilder.file("{}"))
    try edit(path, set: ["k=v:w=x"])
    #expect(try directory.read("m.safetensors") == SafetensorsBuilder.file("{\"__metadata__\":{\"k\":\"v:w=x\"}}  "))
    #expect(try edit(path, remove: ["k"]).isHeaderOnly)
  }
}
