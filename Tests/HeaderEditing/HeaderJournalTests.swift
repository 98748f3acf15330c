import Bytes
import Commands
import Foundation
import TestSupport
import Testing
import Verification

@testable import HeaderEditing

/// Edits that a power failure cut short: what the next one finds, and what it does.
@Suite struct HeaderJournalTests {
  let directory: TemporaryDirectory
  let path: String
  let old = PlainGGUF.small
  let new: PlainGGUF

  init() throws {
    directory = try TemporaryDirectory()
    path = try directory.write("m.gguf", PlainGGUF.small.bytes)
    var new = PlainGGUF.small
    new["general.name"] = .text("tuny")
    new["llama.context_length"] = .u32(77)
    self.new = new
  }

  private func journal(_ digest: XXH128Digest? = nil) -> HeaderJournal {
    HeaderJournal(fileSize: old.bytes.count, newDigest: digest, old: old.header, new: new.header)
  }

  private func write(_ journal: HeaderJournal) throws { try directory.write("m.gguf.nibble-header", journal.encoded) }

  private func digest(_ bytes: [UInt8]) -> XXH128Digest { bytes.withUnsafeBytes { XXH128Digest(of: $0) } }

  @discardableResult
  private func edit(set: [String] = [], dryRun: Bool = false) throws -> Edit.Report {
    var edit = Edit()
    edit.settings = set
    edit.isDryRun = dryRun
    edit.progress = .silent
    return try edit(path) { _ in }
  }

  /// The header as it is when some of its bytes have been written.
  private func torn(_ count: Int) -> [UInt8] { Array(new.bytes[..<count]) + old.bytes[count...] }

  /// Wherever it broke off.
  @Test func everyPlace() throws {
    var undone = 0
    for count in Array(stride(from: 0, to: old.header.count, by: 13)) + [old.header.count] {
      try directory.write("m.gguf", torn(count))
      try write(journal())
      let report = try edit()
      #expect(report.warnings.count == 1 && report.bytes == 0)
      let bytes = try directory.read("m.gguf")
      // Complete when its last byte was written; undone before.
      #expect(bytes == (torn(count) == new.bytes ? new.bytes : old.bytes))
      if bytes == old.bytes { undone += 1 }
      #expect(try directory.names == ["m.gguf"])
    }
    #expect(undone > 0 && undone < old.header.count)
  }

  @Test func goesOnWithTheEdit() throws {
    try directory.write("m.gguf", torn(100))
    try write(journal())
    #expect(throws: Failure.self) { try edit(set: ["general.name=timy"], dryRun: true) }
    try edit(set: ["general.name=timy"])
    var expected = old
    expected["general.name"] = .text("timy")
    #expect(try directory.read("m.gguf") == expected.bytes)
  }

  @Test func verifyTells() throws {
    try directory.write("m.gguf", torn(100))
    try write(journal())
    var verify = Verify()
    verify.progress = .silent
    #expect(try verify(path).problems.contains { $0.problem.contains("an edit of it was interrupted") })
  }

  /// Another tool has written the file since: nothing is put over that.
  @Test(arguments: ["data", "header", "longer"]) func changedSince(_ change: String) throws {
    var bytes = torn(old.header.count / 2)
    switch change {
    case "header": bytes[20] ^= 0xFF
    case "longer": bytes += [0]
    default: bytes = Array(bytes[..<50])
    }
    try directory.write("m.gguf", bytes)
    try write(journal())
    let before = try Snapshot(directory.path)
    let error = #expect(throws: Failure.self) { try edit(set: ["general.name=timy"]) }
    #expect(error?.code == .malformed && error?.message.contains("changed by something else") == true)
    #expect(try Snapshot(directory.path) == before)
  }

  @Test func damagedJournal() throws {
    try write(journal())
    let whole = try directory.read("m.gguf.nibble-header")
    for count in [0, 10, 60, whole.count - 1] {
      try directory.write("m.gguf.nibble-header", Array(whole[..<count]))
      #expect(throws: Failure.self) { try edit() }
    }
    var bytes = whole
    bytes[80] ^= 1
    try directory.write("m.gguf.nibble-header", bytes)
    let error = #expect(throws: Failure.self) { try edit() }
    #expect(error?.file?.hasSuffix("m.gguf.nibble-header") == true)
    #expect(try directory.read("m.gguf") == old.bytes)
  }

  // MARK: - With a manifest

  /// Runs a whole edit, then puts back what would not have happened yet.
  private func interrupted(manifestIsNew: Bool) throws {
    var join = Reshard(.join)
    join.run.progress = .silent
    join.run.force = true
    try directory.write("source.gguf", old.bytes)
    _ = try join(directory.path("source.gguf"), output: path) { _ in }
    let manifest = try directory.read("m.gguf.nibble-manifest.json")
    try edit(set: ["general.name=tuny", "llama.context_length=77"])
    #expect(try directory.read("m.gguf") == new.bytes)
    if !manifestIsNew { try directory.write("m.gguf.nibble-manifest.json", manifest) }
    try write(journal(digest(new.bytes)))
  }

  @Test(arguments: [true, false]) func manifestDecides(_ isNew: Bool) throws {
    for count in [0, 100, old.header.count] {
      try? FileManager.default.removeItem(atPath: path + ".nibble-header")
      try interrupted(manifestIsNew: isNew)
      try directory.write("m.gguf", torn(count))
      try edit()
      #expect(try directory.read("m.gguf") == (isNew ? new.bytes : old.bytes))
      var verify = Verify()
      verify.progress = .silent
      #expect(try verify(path).isGood)
    }
  }

  /// The list for xxhsum is one edit behind the manifest, or before it.
  @Test(arguments: ["manifest", "both", "checksums"]) func checksumsFollow(_ replaced: String) throws {
    _ = try directory.makeDirectory("source")
    let tensors = SafetensorsBuilder.small.tensors
    try directory.write("source/model.safetensors", SafetensorsBuilder(tensors, metadata: "{\"k\":\"old\"}").bytes)
    var join = Reshard(.join)
    join.run.progress = .silent
    let out = directory.path("out")
    _ = try join(directory.path("source"), output: out) { _ in }
    let names = ["out/model.safetensors", "out/nibble-manifest.json", "out/checksums.xxh128"]
    let before = try names.map { try directory.read($0) }
    var edit = Edit()
    edit.settings = ["k=new"]
    edit.progress = .silent
    _ = try edit(out + "/model.safetensors") { _ in }
    let after = try names.map { try directory.read($0) }
    if replaced == "checksums" { try directory.write(names[1], before[1]) }
    if replaced == "manifest" { try directory.write(names[2], before[2]) }
    let start = after[0].count - 22
    let journal = HeaderJournal(
      fileSize: after[0].count, newDigest: digest(after[0]), old: Array(before[0][..<start]),
      new: Array(after[0][..<start]))
    try directory.write("out/model.safetensors.nibble-header", journal.encoded)
    edit.settings = []
    _ = try edit(out + "/model.safetensors") { _ in }
    #expect(try directory.read(names[0]) == (replaced == "checksums" ? before[0] : after[0]))
    var verify = Verify()
    verify.progress = .silent
    let result = try verify(out)
    #expect(result.isGood, "\(result.problems)")
  }
}
