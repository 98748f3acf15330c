import JSON
import TestSupport
import Testing

/// `nibble verify --manifest` with what `llama-gguf-hash` printed.
@Suite struct HashManifestTests {
  @Test func exitCodes() throws {
    let directory = try TemporaryDirectory()
    let path = try directory.write("m.gguf", PlainGGUF.small.bytes)
    func verify(_ line: String, _ options: [String] = []) throws -> Tool.Result {
      let manifest = try directory.write("hashes", Array((line + "\n").utf8))
      return try Tool.run(["verify", path, "--manifest", manifest] + options)
    }
    let good = try verify("xxh64     682870f5b0a5f36a  m.gguf")
    #expect(good.status == 0 && good.output == "ok: 4 tensors, 856 B checked\n", "\(good.output)\(good.error)")
    let bad = try verify("xxh64     0dc26796598848c4  x/m.gguf:blk.0.attn_q.weight", ["--json"])
    #expect(bad.status == 1 && bad.error == "")
    let problem = try #require(parse(bad.output)?["problems"]?.array?.first)
    #expect(problem["file"]?.string == "m.gguf" && problem["tensor"]?.string == "blk.0.attn_q.weight")
    #expect(problem["problem"]?.string?.hasPrefix("xxh64 is 0dc26796598848c3, ") == true)
    Refusal(status: 65, message: "says nothing of 'm.gguf'").check(
      try verify("xxh64     682870f5b0a5f36a  other.gguf", ["--json"]), "verify")
    let missing = try Tool.run("verify", path, "--manifest", directory.path("none"), "--json")
    Refusal(status: 66, message: "none: cannot open").check(missing, "verify")
  }
}
