import Bytes
import Foundation
import GGUF
import JSON
import Safetensors
import TestSupport
import Testing
import Verification

@testable import HeaderEditing

/// Metadata that changes while not a byte of data does.
@Suite struct EditTests {
  let directory: TemporaryDirectory
  let path: String

  init() throws {
    directory = try TemporaryDirectory()
    path = try directory.write("m.gguf", PlainGGUF.small.bytes)
  }

  @discardableResult
  private func edit(
    _ path: String, set: [String] = [], remove: [String] = [], rename: [String] = [], dryRun: Bool = false
  ) throws -> Edit.Report {
    var edit = Edit()
    edit.settings = set
    edit.removals = remove
    edit.renames = rename
    edit.isDryRun = dryRun
    edit.progress = .silent
    return try edit(path) { _ in }
  }

  private func verify(_ path: String) throws -> Verify.Result {
    var verify = Verify()
    verify.progress = .silent
    return try verify(path)
  }

  private func inode(_ path: String) -> UInt64? { FileIdentity(path: path)?.inode }

  // MARK: - GGUF

  @Test func inPlace() throws {
    let before = inode(path)
    let report = try edit(path, set: ["general.name=tuny", "llama.context_length=256"])
    var expected = PlainGGUF.small
    expected["general.name"] = .text("tuny")
    expected["llama.context_length"] = .u32(256)
    #expect(try directory.read("m.gguf") == expected.bytes)
    #expect(report.isHeaderOnly && report.bytes == expected.header.count && report.manifest == nil)
    #expect(inode(path) == before)
    #expect(try directory.names == ["m.gguf"])
  }

  @Test func newFile() throws {
    let before = inode(path)
    #expect(chmod(path, 0o640) == 0)
    let report = try edit(
      path,
      set: [
        "general.name=a name that is longer than all the padding there is", "x.list=[1, -2]", "x.words=[\"a\", \"é\"]",
      ],
      remove: ["llama.rope.freq_base"], rename: ["llama.context_length=llama.ctx"])
    var expected = PlainGGUF.small
    expected["general.name"] = .text("a name that is longer than all the padding there is")
    expected["llama.rope.freq_base"] = nil
    expected.pairs[2].key = "llama.ctx"
    expected["x.list"] = .i32s([1, -2])
    expected["x.words"] = .texts(["a", "é"])
    #expect(try directory.read("m.gguf") == expected.bytes)
    #expect(!report.isHeaderOnly && report.bytes == expected.bytes.count)
    #expect(inode(path) != before)
    #expect(try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int == 0o640)
    #expect(try directory.names == ["m.gguf"])
  }

  /// What stands behind the last tensor goes along, the version stays.
  @Test(arguments: ["tuny", "a name that is longer than all the padding there is"]) func oldVersionAndRest(
    _ name: String
  ) throws {
    var model = PlainGGUF.small
    model.version = 2
    model.alignment = 64
    model.pairs.append(("general.alignment", .u32(64)))
    try directory.write("m.gguf", model.bytes + [9, 8, 7])
    try edit(path, set: ["general.name=\(name)"])
    model["general.name"] = .text(name)
    #expect(try directory.read("m.gguf") == model.bytes + [9, 8, 7])
  }

  @Test func unchangedValue() throws {
    let report = try edit(path, set: ["general.name=tiny"])
    #expect(report.bytes == 0)
    #expect(try directory.read("m.gguf") == PlainGGUF.small.bytes)
  }

  @Test func dryRun() throws {
    let before = try Snapshot(directory.path)
    #expect(try edit(path, set: ["general.name=tuny"], dryRun: true).isHeaderOnly)
    #expect(
      try !edit(path, set: ["general.name=a name that is longer than all the padding there is"], dryRun: true)
        .isHeaderOnly)
    #expect(try Snapshot(directory.path) == before)
  }

  // MARK: - Values

  struct Row: Sendable, CustomTestStringConvertible {
    var text: String
    var present: GGUFValue?
    /// Type and value, or a part of the message.
    var expected: String
    var testDescription: String { "\(present?.typeName ?? "new") \(text)" }

    init(_ text: String, _ present: GGUFValue?, _ expected: String) {
      (self.text, self.present, self.expected) = (text, present, expected)
    }
  }

  static let rows = [
    Row("5", .uint8(1), "uint8 5"), Row("256", .uint8(1), "not a whole number from 0 to 255"),
    Row("-129", .int8(1), "from -128 to 127"), Row("+5", .uint8(1), "not a whole number"),
    Row("5.0", .uint32(1), "not a whole number"), Row("", .uint32(1), "not a whole number"),
    Row("18446744073709551615", .uint64(1), "uint64 \"18446744073709551615\""),
    Row("1e-5", .float32(1), "float32 1e-05"), Row("1e39", .float32(1), "not a number that float32 can hold"),
    Row("nan", .float64(1), "not a number that float64"), Row("1e300", .float64(1), "float64 1e+300"),
    Row("true", .bool(false), "bool true"), Row("1", .bool(false), "'1' is not true or false"),
    Row("u16:5", .uint8(1), "uint16 5"), Row("u16:70000", nil, "from 0 to 65535"),
    Row("time: 5", .text("x"), "string time: 5"), Row("http://x", nil, "string http://x"),
    Row("str:u8:5", .text("x"), "string u8:5"), Row("u8:x", .text("x"), "write 'str:u8:x'"),
    Row("U8:5", nil, "string U8:5"), Row("[1]", .text("x"), "string [1]"), Row("", .text("x"), "string "),
    Row("5", nil, "uint32 5"), Row("-5", nil, "int32 -5"), Row("4294967296", nil, "uint64 4294967296"),
    Row("-4294967296", nil, "int64 -4294967296"), Row("0.5", nil, "float32 0.5"), Row("false", nil, "bool false"),
    Row("05", nil, "string 05"), Row("bool:true", nil, "bool true"), Row("f64:1.5", nil, "float64 1.5"),
    Row("[1, 2]", nil, "int32 × 2 [1, 2]"), Row("[1, 4294967296]", nil, "int64 × 2 [1, 4294967296]"),
    Row("[1, 0.5]", nil, "float32 × 2 [1.0, 0.5]"), Row("[true]", nil, "bool × 1 [true]"),
    Row("[\"a\", 1]", nil, "an array of string cannot hold a number"), Row("[]", nil, "needs a type"),
    Row("u8:[]", nil, "uint8 × 0 []"), Row("u8:[1, 256]", nil, "from 0 to 255"), Row("[x", nil, "write 'str:[x'"),
    Row("[1, 2, 3]", .uint32s([7]), "uint32 × 3 [1, 2, 3]"), Row("[-1]", .uint32s([7]), "from 0 to 4294967295"),
    Row("7", .uint32s([7]), "is not an array"), Row("[\"é\"]", .strings(["a"]), "string × 1 [\"é\"]"),
    Row("[[1]]", nil, "cannot hold an array"), Row("[null]", .strings([]), "cannot hold null"),
    Row("[1]", .uint32(1), "not a whole number"),
  ]

  @Test(arguments: rows) func value(_ row: Row) throws {
    do throws(Failure) {
      let value = try GGUFValue(text: row.text, replacing: row.present)
      #expect("\(value.typeName) \(try value.summary())" == row.expected)
    } catch {
      #expect(error.code == .usage && error.message.contains(row.expected), "\(error)")
    }
  }

  // MARK: - Refusals

  struct Refused: Sendable {
    var set: [String] = []
    var remove: [String] = []
    var rename: [String] = []
    var message: String
  }

  @Test(arguments: [
    Refused(message: "nothing to do"),
    Refused(set: ["general.name"], message: "'general.name' is not KEY=VALUE"),
    Refused(set: ["=x"], message: "'=x' is not KEY=VALUE"),
    Refused(rename: ["general.name="], message: "names no new key"),
    Refused(remove: ["general.nam"], message: "there is no key 'general.nam'; did you mean 'general.name'?"),
    Refused(remove: ["zzz"], message: "there is no key 'zzz'"),
    Refused(rename: ["lama.context_length=x"], message: "did you mean 'llama.context_length'?"),
    Refused(rename: ["general.name=general.architecture"], message: "there is such a key already"),
    Refused(set: ["a=1", "a=2"], message: "'a' is named twice"),
    Refused(set: ["general.name=x"], remove: ["general.name"], message: "'general.name' is named twice"),
    Refused(rename: ["general.name=a", "general.architecture=a"], message: "'a' is named twice"),
    Refused(set: ["general.alignment=64"], message: "every tensor would have to move"),
    Refused(rename: ["general.name=general.alignment"], message: "every tensor would have to move"),
    Refused(set: ["split.count=2"], message: "'nibble split' and 'nibble join'"),
    Refused(set: ["llama.context_length=x"], message: "'llama.context_length': 'x' is not a whole number"),
  ])
  func refused(_ row: Refused) throws {
    for file in ["m.gguf", "m.safetensors"] {
      if row.message.contains("tensor") || row.message.contains("split") || row.message.contains("whole"),
        file != "m.gguf"
      {
        continue
      }
      let metadata = "{\"general.name\":\"x\",\"general.architecture\":\"y\",\"llama.context_length\":\"1\"}"
      try directory.write(
        "m.safetensors", SafetensorsBuilder(SafetensorsBuilder.small.tensors, metadata: metadata).bytes)
      let before = try Snapshot(directory.path)
      let error = #expect(throws: Failure.self) {
        try edit(directory.path(file), set: row.set, remove: row.remove, rename: row.rename)
      }
      #expect(error?.code == .usage && error?.message.contains(row.message) == true, "\(String(describing: error))")
      #expect(try Snapshot(directory.path) == before)
    }
  }

  @Test func warnings() throws {
    let report = try edit(path, set: ["general.architecture=qwen2", "llama.context_length=u64:5"])
    #expect(report.warnings.contains { $0.contains("decides which other keys") })
    #expect(report.warnings.contains { $0.contains("was uint32 and becomes uint64") })
  }

  @Test func partOfASplit() throws {
    var model = PlainGGUF.small
    model.pairs = [("split.no", .u16(1)), ("split.count", .u16(2))]
    try directory.write("m-00002-of-00002.gguf", model.bytes)
    let error = #expect(throws: Failure.self) { try edit(directory.path("m-00002-of-00002.gguf"), set: ["a=b"]) }
    #expect(error?.code == .unsupported && error?.message.contains("is file 2 of a split") == true)
    // The first alone has metadata; the others need not even be there.
    model.pairs = [("general.name", .text("tiny")), ("split.no", .u16(0)), ("split.count", .u16(2))]
    try directory.write("m-00001-of-00002.gguf", model.bytes)
    try edit(directory.path("m-00001-of-00002.gguf"), set: ["general.name=tuny"])
    model["general.name"] = .text("tuny")
    #expect(try directory.read("m-00001-of-00002.gguf") == model.bytes)
  }

  // MARK: - Files that are not whole, or not files

  @Test func damaged() throws {
    let whole = PlainGGUF.small.bytes
    for count in [0, 3, 20, 100, PlainGGUF.small.header.count, whole.count - 40] {
      try directory.write("bad.gguf", Array(whole[..<count]))
      let error = #expect(throws: Failure.self) { try edit(directory.path("bad.gguf"), set: ["a=b"]) }
      #expect(error?.code == .malformed, "\(count): \(String(describing: error))")
      #expect(try directory.read("bad.gguf") == Array(whole[..<count]))
    }
    for (name, code) in [("missing.gguf", Failure.Code.missing), ("", .malformed)] {
      let error = #expect(throws: Failure.self) { try edit(directory.path(name), set: ["a=b"]) }
      #expect(error?.code == code)
    }
    try directory.write("zip", [0x50, 0x4B, 3, 4] + [UInt8](repeating: 0, count: 64))
    let error = #expect(throws: Failure.self) { try edit(directory.path("zip"), set: ["a=b"]) }
    #expect(error?.code == .unsupported, "\(String(describing: error))")
  }

  @Test func links() throws {
    let blobs = try directory.makeDirectory("models--a--b/blobs")
    let snapshot = try directory.makeDirectory("models--a--b/snapshots/1")
    try directory.write("models--a--b/blobs/abc", PlainGGUF.small.bytes)
    try FileManager.default.createSymbolicLink(
      atPath: snapshot + "/m.gguf", withDestinationPath: "../../blobs/abc")
    try FileManager.default.createSymbolicLink(atPath: directory.path("link.gguf"), withDestinationPath: "m.gguf")
    let before = try Snapshot(directory.path)
    for (file, message) in [
      (snapshot + "/m.gguf", "is a link into a cache"), (blobs + "/abc", "is a cache's file"),
      (directory.path("link.gguf"), "/m.gguf'; name that file itself"),
    ] {
      let error = #expect(throws: Failure.self) { try edit(file, set: ["general.name=tuny"]) }
      #expect(error?.code == .cannotCreate && error?.message.contains(message) == true, "\(String(describing: error))")
    }
    #expect(try Snapshot(directory.path) == before)
  }

  /// Another name of the same file keeps the old contents.
  @Test func secondName() throws {
    #expect(link(path, directory.path("other.gguf")) == 0)
    let report = try edit(path, set: ["general.name=tuny"])
    #expect(!report.isHeaderOnly)
    #expect(try directory.read("other.gguf") == PlainGGUF.small.bytes)
    #expect(try directory.read("m.gguf") != PlainGGUF.small.bytes)
  }
}
