import Bytes
import Commands
import Foundation
import TestSupport
import Testing

@testable import Verification

/// Digests that `llama-gguf-hash` of llama.cpp (in llama-cpp-python 0.3.36) printed for `PlainGGUF.small`, called with
/// `--all --uuid m.gguf`.
@Suite struct HashManifestTests {
  let directory: TemporaryDirectory
  let path: String

  static let lines = """
    xxh64     cd70812701d35a54  m.gguf:token_embd.weight
    sha1      6d7bf576b988236173f595188aad4bca5c87fca3  m.gguf:token_embd.weight
    sha256    f3504cfbe5f8b8652af973abb9a6740122e118d7d6d38ff3b03ca9579b8aa894  m.gguf:token_embd.weight
    xxh64     4a985ae7c59a8dc8  m.gguf:blk.0.attn_norm.weight
    sha1      9aa9210957d948887e3675e4ab43670b28444762  m.gguf:blk.0.attn_norm.weight
    sha256    b69abd7d819c2b59c4f1d89aad119dfc17bfa5465b0bf828c9dac887ed93f4b0  m.gguf:blk.0.attn_norm.weight
    xxh64     0dc26796598848c3  m.gguf:blk.0.attn_q.weight
    sha1      0ed1cf7c1b057cc1c835c34fda5370640105c5d6  m.gguf:blk.0.attn_q.weight
    sha256    0623cbd31ae3c45c181faca0f52750f8a8107bdccca259814dda91b20cf6d8b3  m.gguf:blk.0.attn_q.weight
    xxh64     b2f35d522a37dbc4  m.gguf:output.weight
    sha1      bef476e0c48b410c1172f4885d6be31fbbe83535  m.gguf:output.weight
    sha256    9c969f877b5921789a69c74a45270989d5133ce190af25d2f6a5632ba22e757e  m.gguf:output.weight
    xxh64     682870f5b0a5f36a  m.gguf
    sha1      efa9f4801825fda8b76535aab51eaa2331f100cb  m.gguf
    sha256    1dc933b7a2b06ec7e99dce01dbb4e07207e62d09e97d0884a7488d45f9b63cc2  m.gguf
    uuid      d5903dae-8048-5ff9-b337-60839b979d8a  m.gguf
    """

  init() throws {
    directory = try TemporaryDirectory()
    path = try directory.write("m.gguf", PlainGGUF.small.bytes)
  }

  private func verify(_ text: String, path: String? = nil) throws -> Verify.Result {
    var verify = Verify()
    verify.progress = .silent
    verify.manifest = try directory.write("hashes", Array(text.utf8))
    return try verify(path ?? self.path)
  }

  private func lines(where isWanted: (String) -> Bool) -> String {
    Self.lines.split(separator: "\n").map(String.init).filter(isWanted).joined(separator: "\n") + "\n"
  }

  @Test func everything() throws {
    let result = try verify(Self.lines)
    #expect(result.isGood && result.notChecked.isEmpty && result.tensorsChecked == 4, "\(result)")
    #expect(result.bytesChecked == PlainGGUF.small.tensors.reduce(0) { $0 + $1.data.count })
  }

  @Test(arguments: ["xxh64", "sha1", "sha256", "uuid"]) func eachKind(_ kind: String) throws {
    let good = lines { $0.hasPrefix(kind) }
    #expect(good.split(separator: "\n").count == (kind == "uuid" ? 1 : 5))
    #expect(try verify(good).isGood)
    // Upper case and any distance between the columns are as good.
    #expect(try verify(good.replacingOccurrences(of: "  ", with: "\t") + "\r\n").isGood)
    // Every line counts.
    for line in good.split(separator: "\n") {
      let digest = String(line.split(separator: " ")[1])
      let other = (digest.hasPrefix("0") ? "1" : "0") + String(digest.dropFirst())
      let changed = line.replacingOccurrences(of: digest, with: other)
      let result = try verify(good.replacingOccurrences(of: String(line), with: changed))
      #expect(result.problems.count == 1)
      let problem = try #require(result.problems.first)
      #expect(problem.file == "m.gguf" && problem.problem.contains("\(kind) is \(digest), "))
      #expect(problem.problem.hasSuffix("says \(other)"))
      #expect(problem.tensor == line.split(separator: ":").dropFirst().first.map(String.init))
    }
  }

  /// One flipped bit is one tensor, and the whole.
  @Test func damage() throws {
    var bytes = PlainGGUF.small.bytes
    bytes[PlainGGUF.small.header.count + 384] ^= 1
    try directory.write("m.gguf", bytes)
    let result = try verify(Self.lines)
    let expected: [String?] = Array(repeating: "blk.0.attn_norm.weight", count: 3) + Array(repeating: nil, count: 4)
    #expect(result.problems.map(\.tensor) == expected)
    // Padding and metadata are no tensor data.
    bytes = PlainGGUF.small.bytes
    bytes[PlainGGUF.small.header.count + 384 + 20] ^= 1
    try directory.write("m.gguf", bytes)
    #expect(try verify(Self.lines).isGood)
  }

  @Test func someLines() throws {
    let one = try verify(lines { $0.hasPrefix("sha1") && $0.hasSuffix("attn_q.weight") })
    #expect(one.isGood && one.tensorsChecked == 1)
    #expect(one.notChecked == ["3 tensors of 'm.gguf', which \(directory.path("hashes")) does not list"])
    let whole = try verify(lines { $0.hasPrefix("sha1") && $0.hasSuffix("m.gguf") })
    #expect(whole.isGood && whole.tensorsChecked == 4 && whole.notChecked.isEmpty)
    let gone = try verify(Self.lines + "\nxxh64  0123456789abcdef  m.gguf:gone\n")
    #expect(gone.problems.map(\.tensor) == ["gone"] && gone.problems[0].problem.hasPrefix("is not in the file"))
  }

  /// The path that the other tool was given need not be ours.
  @Test func paths() throws {
    let elsewhere = Self.lines.replacingOccurrences(of: "m.gguf", with: "/models/a b/m.gguf")
    #expect(try verify(elsewhere).isGood)
    let others = Self.lines + "\nmanifest  x  sha256\nxxh64     0123456789abcdef  other.gguf\n\n"
    let result = try verify(others)
    #expect(result.isGood && result.notChecked == ["1 line of \(directory.path("hashes")), which is of another file"])
    // The same name in two places: only the path as it was given tells.
    let both = Self.lines + "\nxxh64  0123456789abcdef  b/m.gguf\n"
    let error = #expect(throws: Failure.self) { try verify(both) }
    #expect(error?.code == .malformed && error?.message.contains("speaks of several files named 'm.gguf'") == true)
    let own = Self.lines.replacingOccurrences(of: "m.gguf", with: path)
    #expect(try verify(own + "\nxxh64  0123456789abcdef  b/m.gguf\n").isGood)
  }

  @Test func splitModel() throws {
    var split = Reshard(.split)
    split.run.progress = .silent
    split.run.maxShardBytes = 1
    _ = try split(path, output: directory.path("s")) { _ in }
    let names = PlainGGUF.small.tensors.map(\.name)
    let listed = lines { $0.hasPrefix("sha256") && $0.contains(":") }
    var text = ""
    for (number, line) in listed.split(separator: "\n").enumerated() where number != 1 {
      text += line.replacingOccurrences(of: "m.gguf", with: "s-0000\(number + 1)-of-00004.gguf") + "\n"
    }
    let result = try verify(text, path: directory.path("s-00003-of-00004.gguf"))
    #expect(result.isGood && result.tensorsChecked == names.count - 1, "\(result)")
    #expect(result.notChecked.count == 1 && result.notChecked[0].hasPrefix("'s-00002-of-00004.gguf': "))
  }

  @Test(arguments: [
    ("xxh64  0123456789abcdef  other.gguf", "says nothing of 'm.gguf'; its first line is of 'other.gguf'"),
    ("nothing to see", "is neither a manifest of Nibble nor the output of llama-gguf-hash"),
    ("xxh64  0123456789abcde  m.gguf", "goes on with 16 digits and a file"),
    ("sha1  0123456789abcdef  m.gguf", "goes on with 40 digits and a file"),
    ("xxh64  0123456789abcdef", "goes on with 16 digits and a file"),
    ("xxh64  0123456789abcdeg  m.gguf", "goes on with 16 digits and a file"),
    ("xxh64  0123456789abcdef  m.gguf\nxxh64  0123456789abcdee  m.gguf", "two different xxh64 of 'm.gguf'"),
    ("xxh64  0123456789abcdef  am.gguf\n", "says nothing of"), ("", "JSON text ends"),
  ])
  func refused(_ text: String, _ message: String) throws {
    let error = #expect(throws: Failure.self) { try verify(text) }
    #expect(error?.code == .malformed && error?.message.contains(message) == true, "\(String(describing: error))")
    #expect(error?.file == directory.path("hashes"))
  }

  @Test func otherModels() throws {
    let model = try directory.write("m.safetensors", SafetensorsBuilder.small.bytes)
    let error = #expect(throws: Failure.self) { try verify(Self.lines, path: model) }
    #expect(error?.code == .unsupported && error?.message.contains("of GGUF files only") == true)
  }

  // MARK: - The digests

  @Test func hashers() throws {
    var xxh64 = XXH64Hasher()
    var sha1 = SHA1Hasher()
    // The tables of their specifications.
    #expect(xxh64.finish() == "ef46db3751d8e999")
    #expect(sha1.finish() == "da39a3ee5e6b4b0d3255bfef95601890afd80709")
    for piece in ["a", "bc"] {
      let bytes = Array(piece.utf8)
      xxh64.update(bytes.span.bytes)
      sha1.update(bytes.span.bytes)
    }
    #expect(xxh64.finish() == "44bc2cf5ad770999")
    #expect(sha1.finish() == "a9993e364706816aba3e25717850c26c9cd0d89d")
  }
}
