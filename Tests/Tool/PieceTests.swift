import Bytes
import Foundation
import JSON
import TestSupport
import Testing

/// Tensors above 1 MiB: the digests of their pieces in the manifest, and what `verify` makes of them.
@Suite struct PieceTests {
  let directory: TemporaryDirectory
  let model: String

  private static let mebibyte = 1 << 20
  private static let quarter = 1 << 18

  /// An embedding of exactly twelve pieces, a norm and two weights, one with more than 1 MiB of codes.
  init() throws {
    directory = try TemporaryDirectory()
    let source = TestModel([
      Self.tensor("model.embed_tokens.weight", [1024, 1536], seed: 1),
      Self.tensor("model.layers.0.self_attn.q_proj.weight", [1536, 1568], seed: 2),
      Self.tensor("model.layers.0.mlp.down_proj.weight", [512, 1024], seed: 3),
      Self.tensor("model.layers.0.input_layernorm.weight", [1536], seed: 4),
      Self.tensor("lm_head.weight", [700, 1001], seed: 5),
    ])
    model = try source.write(to: directory)
  }

  /// BF16 values of all magnitudes below 1, made quickly.
  private static func tensor(_ name: String, _ shape: [Int], seed: UInt64) -> SafetensorsBuilder.Tensor {
    let count = 2 * shape.reduce(1, *)
    var generator = SplitMix64(seed: seed)
    let data = [UInt8](unsafeUninitializedCapacity: count + 8) { buffer, initialized in
      for start in stride(from: 0, to: count, by: 8) {
        let values = generator.next() & 0xBF7F_BF7F_BF7F_BF7F
        UnsafeMutableRawBufferPointer(buffer).storeBytes(of: values, toByteOffset: start, as: UInt64.self)
      }
      initialized = count
    }
    return SafetensorsBuilder.Tensor(name, "BF16", shape, data)
  }

  private func run(_ words: [String], sourceLocation: SourceLocation = #_sourceLocation) throws {
    let run = try Tool.run(words + ["--quiet"], sourceLocation: sourceLocation)
    #expect(run.status == 0, "\(run.output)\(run.error)", sourceLocation: sourceLocation)
  }

  private func manifestText(_ name: String = "out") throws -> String {
    String(decoding: try directory.read("\(name)/nibble-manifest.json"), as: UTF8.self)
  }

  // MARK: - Written

  /// Holds every entry of a manifest to the bytes that it speaks of.
  ///
  /// - Returns: the names of the tensors that have pieces.
  @discardableResult
  private func check(_ name: String, sourceLocation: SourceLocation = #_sourceLocation) throws -> [String] {
    let manifest = try #require(parse(try manifestText(name), sourceLocation), sourceLocation: sourceLocation)
    #expect(manifest["version"]?.int == 1)
    var divided: [String] = []
    var files: [String: [UInt8]] = [:]
    for (tensor, entry) in try #require(manifest["tensors"]?.object).members {
      let file = try #require(entry["file"]?.string)
      let bytes = try files[file] ?? directory.read("\(name)/\(file)")
      files[file] = bytes
      let start = try #require(entry["offset"]?.int)
      let count = try #require(entry["bytes"]?.int)
      func digest(_ range: Range<Int>) -> String {
        bytes[start + range.lowerBound..<start + range.upperBound].withUnsafeBytes { XXH3Digest(of: $0).hexadecimal }
      }
      #expect(entry["xxh3"]?.string == digest(0..<count), "\(tensor)", sourceLocation: sourceLocation)
      guard count > Self.mebibyte else {
        #expect(entry["pieces"] == nil, "\(tensor)", sourceLocation: sourceLocation)
        continue
      }
      divided.append(tensor)
      // None of these tensors has more than 32 MiB.
      #expect(entry["pieces"]?["bytes"]?.int == Self.quarter, "\(tensor)", sourceLocation: sourceLocation)
      let expected = stride(from: 0, to: count, by: Self.quarter).map { digest($0..<min($0 + Self.quarter, count)) }
      #expect(entry["pieces"]?["xxh3"]?.string == expected.joined(), "\(tensor)", sourceLocation: sourceLocation)
    }
    return divided.sorted()
  }

  @Test func everyVerb() throws {
    let embedding = "model.embed_tokens.weight"
    let query = "model.layers.0.self_attn.q_proj.weight"
    try run(["quantize", model, "-o", directory.path("out")])
    #expect(try check("out") == ["lm_head.weight", embedding, query].sorted())
    // Statistics that are large, and shards.
    try run([
      "quantize", model, "-o", directory.path("plain"), "--no-double-quant", "--block-size", "32",
      "--max-shard-size", "2MB",
    ])
    try check("plain")
    // 4-bit weights computed back, then bytes that the kernel copies.
    try run(["convert", directory.path("out"), "-o", directory.path("wide"), "--dtype", "float32"])
    #expect(try check("wide").count == 4)
    try run(["convert", model, "-o", directory.path("copy"), "--max-shard-size", "3MB"])
    #expect(try check("copy").count == 3)

    var adapter = AdapterBuilder(
      AdapterBuilder.linear("model.layers.0.self_attn.q_proj", [1536, 1568])
        + AdapterBuilder.linear("model.layers.0.mlp.down_proj", [512, 1024], seed: 8))
    adapter.set("target_modules", "[\"q_proj\", \"down_proj\"]")
    let adapterPath = try adapter.write(to: directory)
    try run(["merge", model, adapterPath, "-o", directory.path("merged")])
    #expect(try check("merged").count == 3)
    try run(["merge", directory.path("out"), adapterPath, "-o", directory.path("again"), "--scheme", "nf4"])
    #expect(try check("again").count == 3)
    for name in ["out", "plain", "wide", "copy", "merged", "again"] { try run(["verify", directory.path(name)]) }
  }

  /// The factors and whole tensors of an adapter.
  @Test func extracted() throws {
    let tuned = TestModel([
      Self.tensor("model.embed_tokens.weight", [1024, 1536], seed: 11),
      Self.tensor("model.layers.0.self_attn.q_proj.weight", [1536, 1568], seed: 12),
      Self.tensor("model.layers.0.mlp.down_proj.weight", [512, 1024], seed: 3),
      Self.tensor("model.layers.0.input_layernorm.weight", [1536], seed: 4),
      Self.tensor("lm_head.weight", [700, 1001], seed: 15),
    ])
    let path = try tuned.write(to: directory, "tuned")
    try run([
      "extract-lora", model, path, "-o", directory.path("out"), "--rank", "256", "--dtype", "float32", "--save-rest",
    ])
    let divided = try check("out")
    #expect(divided.contains { $0.hasSuffix("lora_A.weight") } && divided.contains { $0.contains("embed_tokens") })
  }

  @Test func whateverTheJobs() throws {
    for jobs in ["1", "2", "5"] { try run(["quantize", model, "-o", directory.path(jobs), "--jobs", jobs]) }
    for name in ["nibble-manifest.json", "checksums.xxh128", "model.safetensors"] {
      let first = try directory.read("1/\(name)")
      for jobs in ["2", "5"] { #expect(try directory.read("\(jobs)/\(name)") == first, "\(name) of \(jobs) jobs") }
    }
  }

  // MARK: - Verified

  private func problems(_ options: String...) throws -> [String] {
    let run = try Tool.run(["verify", directory.path("out"), "--json"] + options)
    #expect(run.status == 1, "\(run.output)\(run.error)")
    return try #require(parse(run.output)?["problems"]?.array).compactMap { $0["problem"]?.string }
  }

  /// The ranges of the tensor and of the file are those of the pieces in which bytes were changed.
  @Test func damagedRanges() throws {
    try run(["convert", model, "-o", directory.path("out")])
    let name = "model.embed_tokens.weight"
    let entry = try #require(parse(try manifestText())?["tensors"]?[name])
    let start = try #require(entry["offset"]?.int)
    let good = try directory.read("out/model.safetensors")
    let q = Self.quarter
    let rows: [(bytes: [Int], inTensor: [ClosedRange<Int>], more: String)] = [
      ([0], [0...q - 1], ""),
      ([q - 1, q], [0...2 * q - 1], ""),
      ([12 * q - 1], [11 * q...12 * q - 1], ""),
      ([5 * q + 3, 7 * q], [5 * q...6 * q - 1, 7 * q...8 * q - 1], ""),
      (
        [0, 2 * q, 4 * q, 6 * q, 8 * q], [0...q - 1, 2 * q...3 * q - 1, 4 * q...5 * q - 1, 6 * q...7 * q - 1],
        " and 1 more range"
      ),
      (
        [0, 2 * q, 4 * q, 6 * q, 8 * q, 10 * q, 11 * q],
        [0...q - 1, 2 * q...3 * q - 1, 4 * q...5 * q - 1, 6 * q...7 * q - 1], " and 2 more ranges"
      ),
      (Array(stride(from: 0, to: 12 * q, by: q)), [0...12 * q - 1], ""),
    ]
    for row in rows {
      var bad = good
      for byte in row.bytes { bad[start + byte] ^= 1 }
      try directory.write("out/model.safetensors", bad)
      let tensor = row.inTensor.map { "\($0.lowerBound)-\($0.upperBound)" }.joined(separator: ", ")
      let file = row.inTensor.map { "\(start + $0.lowerBound)-\(start + $0.upperBound)" }.joined(separator: ", ")
      let found = try problems()
      #expect(found.count == 1)
      let expected = "; damaged are its bytes \(tensor)\(row.more), in the file \(file)"
      #expect(found.first?.hasSuffix(expected) == true, "\(found) instead of \(expected)")
    }
  }

  /// The shorter last piece, in a tensor that other damaged ones surround.
  @Test func damagedEnds() throws {
    try run(["convert", model, "-o", directory.path("out"), "--max-shard-size", "3MB"])
    let tensors = try #require(parse(try manifestText())?["tensors"]?.object)
    for (_, entry) in tensors.members {
      let file = try #require(entry["file"]?.string)
      var bytes = try directory.read("out/\(file)")
      bytes[try #require(entry["offset"]?.int) + (try #require(entry["bytes"]?.int)) - 1] ^= 0x80
      try directory.write("out/\(file)", bytes)
    }
    let found = try problems("--jobs", "3")
    #expect(found.count == tensors.count)
    let ranges = tensors.members.compactMap { _, entry -> String? in
      guard let count = entry["bytes"]?.int, let start = entry["offset"]?.int, count > Self.mebibyte else { return nil }
      let first = (count - 1) / Self.quarter * Self.quarter
      return "; damaged are its bytes \(first)-\(count - 1), in the file \(start + first)-\(start + count - 1)"
    }
    #expect(ranges.count == 3)
    for range in ranges { #expect(found.contains { $0.hasSuffix(range) }, "\(range): \(found)") }
  }

  /// Pieces in which nothing is wrong: then it is the digest in the manifest that is.
  @Test func piecesWithoutDamage() throws {
    try run(["convert", model, "-o", directory.path("out")])
    let text = try manifestText()
    let changed = text.replacing(/"xxh3": "[0-9a-f]{16}", "pieces"/, with: "\"xxh3\": \"0123456789abcdef\", \"pieces\"")
    #expect(changed != text)
    try directory.write("bad.json", Array(changed.utf8))
    let found = try problems("--manifest", directory.path("bad.json"))
    let expected = "; read once more, its pieces are as the manifest says"
    #expect(found.filter { $0.hasSuffix(expected) }.count == 3, "\(found)")
  }

  // MARK: - Manifests of others

  /// Without pieces, in pieces of another size, and with pieces where Nibble writes none.
  @Test func otherPieces() throws {
    try run(["convert", model, "-o", directory.path("out")])
    let text = try manifestText()
    let other = "0000000000000000"
    for manifest in [
      text.replacing(/, "pieces": \{[^}]*\}/, with: ""),
      text.replacing(/"pieces": \{[^}]*\}/, with: "\"pieces\": {\"xxh3\": \"\(other)\", \"bytes\": \(Int.max)}"),
      text.replacing(
        /("bytes": 3072, "xxh3": "[0-9a-f]{16}")\}/,
        with: { "\($0.1), \"pieces\": {\"bytes\": 2048, \"xxh3\": \"\(other)\(other)\"}}" }),
    ] {
      #expect(manifest != text)
      try directory.write("other.json", Array(manifest.utf8))
      try run(["verify", directory.path("out"), "--manifest", directory.path("other.json")])
    }
  }

  struct BadPieces: Sendable, CustomTestStringConvertible {
    var name: String
    /// Raw JSON.
    var json: String
    var testDescription: String { name }
  }

  private static let digits = String(repeating: "0", count: 16)

  static let badPieces: [BadPieces] = [
    BadPieces(name: "null", json: "null"), BadPieces(name: "text", json: "\"\""),
    BadPieces(name: "list", json: "[262144, \"\(digits)\"]"), BadPieces(name: "empty", json: "{}"),
    BadPieces(name: "no size", json: "{\"xxh3\": \"\(digits)\"}"),
    BadPieces(name: "no digests", json: "{\"bytes\": 262144}"),
    BadPieces(name: "no bytes", json: pieces("0", digits)), BadPieces(name: "negative", json: pieces("-1", digits)),
    BadPieces(name: "least", json: pieces("\(Int.min)", digits)),
    BadPieces(name: "fraction", json: pieces("262144.0", digits)),
    BadPieces(name: "text for a size", json: pieces("\"262144\"", digits)),
    BadPieces(name: "beyond 64 bits", json: pieces("9223372036854775808", digits)),
    BadPieces(name: "pieces of a byte", json: pieces("1", digits)),
    BadPieces(name: "one too few", json: pieces("262144", String(repeating: digits, count: 11))),
    BadPieces(name: "one too many", json: pieces("262144", String(repeating: digits, count: 13))),
    BadPieces(name: "a digit too many", json: pieces("262144", String(repeating: digits, count: 12) + "0")),
    BadPieces(name: "none", json: pieces("262144", "")),
    BadPieces(
      name: "no hexadecimal", json: pieces("262144", String(repeating: digits, count: 11) + "000000000000000g")),
    BadPieces(name: "wide digits", json: pieces("\(Int.max)", String(repeating: "０", count: 16))),
    BadPieces(name: "list of digests", json: "{\"bytes\": \(Int.max), \"xxh3\": [\"\(digits)\"]}"),
    BadPieces(name: "another member", json: "{\"bytes\": \(Int.max), \"xxh3\": \"\(digits)\", \"x\": 1}"),
    BadPieces(name: "twice", json: pieces("\(Int.max)", digits) + ", \"pieces\": {}"),
  ]

  private static func pieces(_ bytes: String, _ digits: String) -> String {
    "{\"bytes\": \(bytes), \"xxh3\": \"\(digits)\"}"
  }

  /// One tensor, which fills its file.
  private static func manifest(byteCount: Int, pieces: String) -> String {
    """
    {"format": "nibble-manifest", "version": 1,
    "files": {"model.safetensors": {"size": \(byteCount), "xxh128": "\(digits)\(digits)"}},
    "tensors": {"a": {"file": "model.safetensors", "offset": 0, "bytes": \(byteCount), "xxh3": "\(digits)",
    "pieces": \(pieces)}}}
    """
  }

  /// Refused before a tensor is read, whatever is wrong with it.
  @Test(arguments: badPieces) func refused(_ row: BadPieces) throws {
    let text = Self.manifest(byteCount: 12 * Self.quarter, pieces: row.json)
    try directory.write("bad.json", Array(text.utf8))
    let message = row.name == "twice" ? "twice" : "'pieces' needs 'bytes' above 0 and 'xxh3' (16 digits for each piece"
    let run = try Tool.run("verify", model, "--manifest", directory.path("bad.json"), "--json")
    Refusal(status: 65, message: message, tensor: row.name == "twice" ? nil : "a").check(run, "verify")
    // In its place it is a difference.
    try directory.write("model/nibble-manifest.json", Array(text.utf8))
    let inPlace = try Tool.run("verify", model)
    #expect(inPlace.status == 1 && inPlace.output.contains(message), "\(inPlace.output)\(inPlace.error)")
  }

  /// As many pieces as an integer can count, of a tensor that is as large as that.
  @Test func tensorBeyondAnyFile() throws {
    let text = Self.manifest(byteCount: .max, pieces: Self.pieces("1", Self.digits))
    try directory.write("bad.json", Array(text.utf8))
    let run = try Tool.run("verify", model, "--manifest", directory.path("bad.json"), "--json")
    Refusal(status: 65, message: "'pieces' needs").check(run, "verify")
  }
}
