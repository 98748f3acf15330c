import Bytes
import Foundation
import JSON
import Safetensors
import TestSupport
import Testing

/// What `verify` finds: any flipped bit, and every file that is not what the manifest says.
@Suite struct DamageTests {
  let directory: TemporaryDirectory
  let model: String
  let out: String

  init() throws {
    directory = try TemporaryDirectory()
    var source = TestModel(layers: 4)
    source.sideFiles = [("tokenizer.json", "{\"a\": 1}"), ("generation_config.json", "{}")]
    model = try source.write(to: directory)
    out = directory.path("out")
    try #require(try Tool.run("quantize", model, "-o", out, "--max-shard-size", "12kB", "--sha256").status == 0)
    #expect(try shards().count >= 3)
  }

  private func shards() throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: out).filter { $0.hasSuffix(".safetensors") }.sorted()
  }

  private struct Problem { var file: String?, tensor: String?, text: String }

  /// Runs `verify`, which must find something, and answers with what.
  private func problems(_ options: String..., sourceLocation: SourceLocation = #_sourceLocation) throws -> [Problem] {
    let run = try Tool.run(["verify", out, "--json"] + options, sourceLocation: sourceLocation)
    #expect(run.status == 1, "\(run.error)\(run.output)", sourceLocation: sourceLocation)
    let json = try #require(parse(run.output))
    #expect(json["ok"]?.bool == false, sourceLocation: sourceLocation)
    return (json["problems"]?.array ?? []).map {
      Problem(file: $0["file"]?.string, tensor: $0["tensor"]?.string, text: $0["problem"]?.string ?? "")
    }
  }

  private func expectGood(sourceLocation: SourceLocation = #_sourceLocation) throws {
    let run = try Tool.run("verify", out)
    #expect(run.status == 0, "\(run.output)\(run.error)", sourceLocation: sourceLocation)
  }

  // MARK: - Bits

  /// Two hundred bits anywhere; in a shard's data the tensor is named, in all else the file.
  @Test func flippedBits() throws {
    try expectGood()
    var generator = SplitMix64(seed: 20)
    let files = try FileManager.default.contentsOfDirectory(atPath: out).sorted()
    let contents = try files.map { try directory.read("out/\($0)") }
    let total = contents.reduce(0) { $0 + $1.count }
    for round in 0..<200 {
      // Small files get their share too.
      let number: Int
      if round % 2 == 0 {
        number = round / 2 % files.count
      } else {
        var position = Int.random(in: 0..<total, using: &generator)
        number =
          contents.firstIndex { bytes in
            if position < bytes.count { return true }
            position -= bytes.count
            return false
          } ?? 0
      }
      var bytes = contents[number]
      let offset = Int.random(in: 0..<bytes.count, using: &generator)
      bytes[offset] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
      try directory.write("out/\(files[number])", bytes)
      let found = try problems()
      let name = files[number]
      let damage = "\(name) at \(offset)"
      if name == "checksums.xxh128" || name == "nibble-manifest.json" {
        #expect(!found.isEmpty, "\(damage)")
      } else {
        // What follows is a consequence: a quant_state that is no JSON, an index that disagrees.
        #expect(found.first?.file == name, "\(damage): \(found)")
      }
      if name.hasSuffix(".safetensors"), let header = try? SafetensorsHeader(ofFile: contents[number]),
        offset >= header.dataStart
      {
        let index = header.tensors.indices.first { header.range(of: $0).contains(offset) }
        let hit = try #require(index.map { header.tensors[$0].name.string })
        #expect(found.first?.tensor == hit, "\(damage): \(found)")
        #expect(found.allSatisfy { hit.hasPrefix($0.tensor ?? "-") }, "\(damage): \(found)")
      }
      try directory.write("out/\(name)", contents[number])
    }
    try expectGood()
  }

  // MARK: - Files

  @Test func missingFiles() throws {
    for name in try FileManager.default.contentsOfDirectory(atPath: out).sorted() {
      let bytes = try directory.read("out/\(name)")
      try FileManager.default.removeItem(atPath: out + "/" + name)
      let found = try problems()
      #expect(found.contains { $0.file == name && $0.text.hasPrefix("is missing") }, "\(name): \(found)")
      try directory.write("out/\(name)", bytes)
    }
    try expectGood()
  }

  @Test func extraFile() throws {
    try directory.write("out/evil.safetensors", SafetensorsBuilder.small.bytes)
    try directory.write("out/pickle.bin", [1])
    let found = try problems()
    for name in ["evil.safetensors", "pickle.bin"] {
      #expect(found.contains { $0.file == name && $0.text == "is not in the manifest" }, "\(found)")
    }
    try FileManager.default.removeItem(atPath: out + "/evil.safetensors")
    try FileManager.default.removeItem(atPath: out + "/pickle.bin")
    // What version control keeps is named, and no fault.
    try directory.write("out/.git/config", making: [1])
    let run = try Tool.run("verify", out)
    #expect(
      run.status == 0 && run.output.contains("not checked: '.git', which the manifest does not list"), "\(run.output)")
  }

  @Test func swappedShards() throws {
    let names = try shards()
    let first = try directory.read("out/\(names[0])")
    let second = try directory.read("out/\(names[1])")
    try directory.write("out/\(names[0])", second)
    try directory.write("out/\(names[1])", first)
    let found = try problems()
    #expect(Set(found.map(\.file)).isSuperset(of: [names[0], names[1]]), "\(found)")
  }

  @Test func truncatedShards() throws {
    let name = try #require(try shards().last)
    let whole = try directory.read("out/\(name)")
    let header = try SafetensorsHeader(ofFile: whole)
    for count in [0, 5, 100, header.dataStart, header.dataStart + 1, whole.count / 2, whole.count - 1] {
      try directory.write("out/\(name)", Array(whole.prefix(count)))
      let found = try problems()
      #expect(found.count == 1 && found[0].file == name, "\(found)")
      let short = whole.count - count
      let distance = short == 1 ? "one byte" : "\(short) bytes"
      #expect(
        found[0].text
          == "the file is \(distance) too short: it has \(count) bytes, the manifest says \(whole.count)")
      let lost = header.tensors.indices.first { header.range(of: $0).upperBound > count }
      #expect(found[0].tensor == lost.map { header.tensors[$0].name.string })
    }
    try directory.write("out/\(name)", whole + [0])
    #expect(try problems().contains { $0.file == name && $0.text.contains("the manifest says") })
    try directory.write("out/\(name)", whole)
    try expectGood()
  }

  /// A link, or a directory, where a file was.
  @Test func replacedByOtherThings() throws {
    let target = out + "/tokenizer.json"
    try FileManager.default.removeItem(atPath: target)
    try FileManager.default.createSymbolicLink(atPath: target, withDestinationPath: model + "/tokenizer.json")
    #expect(try problems().contains { $0.file == "tokenizer.json" && $0.text.contains("is a symbolic link") })
    try FileManager.default.removeItem(atPath: target)
    _ = try directory.makeDirectory("out/tokenizer.json")
    #expect(try problems().contains { $0.file == "tokenizer.json" })
  }

  @Test func checksumsThatAreALink() throws {
    let bytes = try directory.read("out/checksums.xxh128")
    try directory.write("elsewhere", bytes)
    try FileManager.default.removeItem(atPath: out + "/checksums.xxh128")
    try FileManager.default.createSymbolicLink(
      atPath: out + "/checksums.xxh128", withDestinationPath: directory.path("elsewhere"))
    #expect(try problems().contains { $0.file == "checksums.xxh128" })
  }

  // MARK: - The manifest

  struct BadManifest: Sendable, CustomTestStringConvertible {
    var name: String
    var message: String
    var change: @Sendable (String) -> String
    var testDescription: String { name }
    init(_ name: String, _ message: String, _ change: @escaping @Sendable (String) -> String) {
      self.name = name
      self.message = message
      self.change = change
    }
  }

  private static let file = "{\"size\": 1, \"xxh128\": \"00000000000000000000000000000000\"}"
  private static func adding(_ name: String) -> @Sendable (String) -> String {
    { $0.replacing("\"files\": {", with: "\"files\": {\(name): \(file), ") }
  }

  static let badManifests: [BadManifest] = [
    BadManifest("empty", "JSON text ends") { _ in "" },
    BadManifest("truncated", "JSON text ends") { String($0.prefix(1)) },
    BadManifest("array", "expected") { _ in "[]" },
    BadManifest("other format", "is not a manifest of Nibble") { $0.replacing("nibble-manifest\",", with: "x\",") },
    BadManifest("no files", "lists no file") { _ in
      "{\"format\":\"nibble-manifest\",\"version\":1,\"files\":{},\"tensors\":{}}"
    },
    BadManifest("no members", "has no 'format'") { _ in "{}" },
    BadManifest("member twice", "key 'version' occurs twice") {
      $0.replacing("\"version\": 1,", with: "\"version\": 1, \"version\": 1,")
    },
    BadManifest("path", "'../x' cannot be a file", adding("\"../x\"")),
    BadManifest("absolute path", "'/etc/passwd' cannot be a file", adding("\"/etc/passwd\"")),
    BadManifest("NUL in a name", "cannot be a file", adding("\"a\\u0000b\"")),
    BadManifest("backslash", "cannot be a file", adding("\"..\\\\x\"")),
    BadManifest("itself", "'nibble-manifest.json' cannot be a file", adding("\"nibble-manifest.json\"")),
    BadManifest("file twice", "the file 'config.json' is listed twice", adding("\"config.json\"")),
    BadManifest("digest too short", "needs 'size' and 'xxh128'") {
      $0.replacing(/"xxh128": "[0-9a-f]{32}"/, with: "\"xxh128\": \"00\"", maxReplacements: 1)
    },
    BadManifest("negative size", "needs 'size' and 'xxh128'") {
      $0.replacing(/"size": \d+/, with: "\"size\": -1", maxReplacements: 1)
    },
    BadManifest("size beyond 64 bits", "needs 'size' and 'xxh128'") {
      $0.replacing(/"size": \d+/, with: "\"size\": 99999999999999999999", maxReplacements: 1)
    },
    BadManifest("tensor digest", "needs 'file', 'offset', 'bytes' and 'xxh3'") {
      $0.replacing(/"xxh3": "[0-9a-f]{16}"/, with: "\"xxh3\": \"zzzzzzzzzzzzzzzz\"", maxReplacements: 1)
    },
    BadManifest("tensor beyond its file", "lies beyond the") {
      $0.replacing(/"offset": \d+/, with: "\"offset\": 9223372036854775807", maxReplacements: 1)
    },
    BadManifest("tensor in no file", "is not listed") {
      $0.replacing("{\"file\": \"model-00001", with: "{\"file\": \"model-00009", maxReplacements: 1)
    },
    BadManifest("unknown algorithm", "algorithm") { $0.replacing("\"sha256\"", with: "\"md5\"") },
    BadManifest("SHA-256 too short", "digest") {
      $0.replacing(/"digest": "[0-9a-f]{64}"/, with: "\"digest\": \"00\"", maxReplacements: 1)
    },
    BadManifest("trailing text", "expected the end") { $0 + "x" },
    BadManifest("other version", "version 2, known is 1") { $0.replacing("\"version\": 1,", with: "\"version\": 2,") },
  ]

  @Test(arguments: badManifests)
  func badManifest(_ row: BadManifest) throws {
    let text = String(decoding: try directory.read("out/nibble-manifest.json"), as: UTF8.self)
    let bad = row.change(text)
    #expect(bad != text)
    try directory.write("bad.json", Array(bad.utf8))
    try directory.write("out/nibble-manifest.json", Array(bad.utf8))
    let found = try problems()
    #expect(found.contains { $0.file == "nibble-manifest.json" && $0.text.contains(row.message) }, "\(found)")
    // Named on the command line it is an input like any other, and rejected.
    try directory.write("out/nibble-manifest.json", Array(text.utf8))
    let run = try Tool.run("verify", out, "--manifest", directory.path("bad.json"), "--json")
    Refusal(status: row.name == "other version" ? 69 : 65, message: row.message).check(run, "verify")
  }

  @Test func digestsOfEitherCase() throws {
    let text = String(decoding: try directory.read("out/nibble-manifest.json"), as: UTF8.self)
    let upper = text.replacing(/"xxh128": "([0-9a-f]{32})"/) { "\"xxh128\": \"\($0.1.uppercased())\"" }
    try directory.write("elsewhere.json", Array(upper.utf8))
    let run = try Tool.run("verify", out, "--manifest", directory.path("elsewhere.json"))
    #expect(run.status == 0, "\(run.output)\(run.error)")
  }

  @Test func manifestThatLiesElsewhere() throws {
    try FileManager.default.moveItem(atPath: out + "/nibble-manifest.json", toPath: directory.path("m.json"))
    try FileManager.default.removeItem(atPath: out + "/checksums.xxh128")
    let run = try Tool.run("verify", out, "--manifest", directory.path("m.json"))
    #expect(run.status == 0, "\(run.output)\(run.error)")
    let shard = try shards()[0]
    let single = try Tool.run("verify", out + "/" + shard, "--manifest", directory.path("m.json"))
    #expect(single.status == 0, "\(single.output)\(single.error)")
    var bytes = try directory.read("out/\(shard)")
    bytes[bytes.count - 1] ^= 1
    try directory.write("out/\(shard)", bytes)
    #expect(try Tool.run("verify", out + "/" + shard, "--manifest", directory.path("m.json")).status == 1)
  }

  // MARK: - Against the source

  @Test func against() throws {
    #expect(try Tool.run("verify", out, "--against", model).status == 0)
    #expect(try Tool.run("verify", out, "--against", directory.path("nowhere")).status == 66)
    var other = TestModel(layers: 4)
    other.tensors[1].data[3] ^= 0x40
    let changed = try other.write(to: directory, "changed")
    #expect(try problems("--against", changed).allSatisfy { $0.tensor == other.tensors[1].name })
    other.tensors.removeLast()
    other.tensors.append(TestModel.tensor("new.weight", "BF16", [4], seed: 9))
    let found = try problems("--against", other.write(to: directory, "other"))
    #expect(
      found.contains { $0.tensor == "lm_head.weight" } && found.contains { $0.tensor == "new.weight" }, "\(found)")
    try directory.write("broken/model.safetensors", making: [1, 2, 3])
    #expect(try Tool.run("verify", out, "--against", directory.path("broken")).status == 65)
  }

  // MARK: - What a digest cannot tell

  /// Two valid files with one XXH3: its key is known, so a pair can be built. SHA-256 tells them apart.
  @Test func craftedCollision() throws {
    // The low halves cancel the key of stripe 4 and stripe 5, so that only the sum of the two counts.
    let secret: [UInt64] = [0x4ee6_79cb, 0x7dd0_5a82]
    func file(_ high: [UInt64]) -> [UInt8] {
      var bytes = SafetensorsBuilder.file(
        "{\"a\":{\"dtype\":\"U8\",\"shape\":[1024],\"data_offsets\":[0,1024]}}" + String(repeating: " ", count: 68),
        [UInt8](repeating: 0, count: 1024))
      for lane in 0..<2 {
        bytes.replaceSubrange(
          256 + 64 * lane..<264 + 64 * lane, with: SafetensorsBuilder.littleEndian(high[lane] << 32 | secret[lane]))
      }
      return bytes
    }
    let one = file([0x3f80_0000, 0])
    let two = file([0, 0x3f80_0000])
    #expect(one != two && one.count == two.count)
    func digest(_ bytes: [UInt8]) -> XXH128Digest { bytes.withUnsafeBytes { XXH128Digest(of: $0) } }
    #expect(digest(one) == digest(two))
    func sha256(_ bytes: [UInt8]) -> String {
      var hasher = SHA256Hasher()
      hasher.update(bytes.span.bytes)
      return hasher.finish()
    }
    let start =
      "{\"format\":\"nibble-manifest\",\"version\":1,\"tensors\":{},\"files\":{\"model.safetensors\":"
      + "{\"size\":\(one.count),\"xxh128\":\"\(digest(one))\"}}"
    let resources =
      ",\"resources\":[{\"name\":\"model.safetensors\",\"algorithm\":\"sha256\",\"digest\":\"\(sha256(one))\"}]"
    for (bytes, manifest, status) in [
      (one, start + "}", Int32(0)), (two, start + "}", 0), (one, start + resources + "}", 0),
      (two, start + resources + "}", 1),
    ] {
      try directory.write("pair/model.safetensors", making: bytes)
      try directory.write("m.json", Array(manifest.utf8))
      let run = try Tool.run("verify", directory.path("pair"), "--manifest", directory.path("m.json"))
      #expect(run.status == status, "\(run.output)\(run.error)")
      if status == 1 { #expect(run.output.contains("SHA-256 is \(sha256(two))")) }
    }
  }
}
