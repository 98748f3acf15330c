import Foundation
import JSON
import Safetensors
import TestSupport
import Testing

/// The objects that `--json` prints, member by member.
@Suite struct ReportTests {
  let directory: TemporaryDirectory
  let model: String
  let out: String

  init() throws {
    directory = try TemporaryDirectory()
    var source = TestModel(layers: 2)
    source.sideFiles = [("tokenizer.json", "{}"), ("modeling_x.py", "pass\n")]
    model = try source.write(to: directory)
    out = directory.path("out")
  }

  private func object(_ arguments: String...) throws -> JSONValue {
    let run = try Tool.run(arguments + ["--json"])
    #expect(run.status == 0, "\(run.error)")
    return try #require(parse(run.output))
  }

  private func keys(_ value: JSONValue?) -> [String] { value?.object.map { Array($0.keys) } ?? [] }

  @Test func quantize() throws {
    let planned = try object("quantize", model, "-o", out, "--dry-run")
    #expect(try directory.names == ["model"])
    let done = try object("quantize", model, "-o", out)
    let members = ["output", "files", "tensors", "parameters", "bytesIn", "bytesOut", "seconds", "warnings"]
    #expect(keys(done) == members)
    #expect(keys(planned) == members)
    for key in members where key != "seconds" { #expect(planned[key] == done[key], "\(key)") }
    #expect(planned["seconds"]?.double == 0)
    #expect(try #require(done["seconds"]?.double) >= 0)
    #expect(done["output"]?.string == out)
    #expect(
      done["files"]?.array?.map(\.string) == [
        "checksums.xxh128", "config.json", "model.safetensors", "modeling_x.py", "nibble-manifest.json",
        "tokenizer.json",
      ])
    #expect(
      try FileManager.default.contentsOfDirectory(atPath: out).sorted()
        == (done["files"]?.array ?? []).map { $0.string ?? "" })
    // Four weights become six tensors each; an embedding, a head and two norms stay.
    #expect(done["tensors"]?.int == 4 * 6 + 4)
    let parameters = 4 * 64 * 64 + 2 * 32 * 64 + 2 * 64
    #expect(done["parameters"]?.int == parameters)
    #expect(done["bytesIn"]?.int == 2 * parameters)
    let size = try FileManager.default.attributesOfItem(atPath: out + "/model.safetensors")[.size] as? Int
    #expect(done["bytesOut"]?.int == size)
    let warnings = (done["warnings"]?.array ?? []).compactMap { $0.string }
    #expect(warnings.contains { $0.contains("'modeling_x.py'") && $0.contains("trust_remote_code") })
    #expect(warnings.contains { $0.contains("model class 'TestForCausalLM' is not known") })
    let run = try Tool.run("quantize", model, "-o", out, "--force")
    #expect(run.warnings.map(String.init) == warnings.map { "nibble: warning: \($0)" })
    let quiet = try Tool.run("quantize", model, "-o", out, "--force", "--quiet")
    #expect(quiet.status == 0 && quiet.error == "")
  }

  /// What a user looks for in the last lines.
  @Test func lastLines() throws {
    let done = try Tool.run("quantize", model, "-o", out, "--keep", "model.layers.0.mlp.*", "-q")
    let lines = done.output.split(separator: "\n")
    #expect(lines.count == 4 && lines[0].hasPrefix("wrote \(out): 6 files, 23 tensors, "), "\(done.output)")
    // Three weights of 64 × 64 of all that there is, and their share of what is written.
    let parameters = 4 * 64 * 64 + 2 * 32 * 64 + 2 * 64
    let inspected = try object("inspect", out)
    let bits = try #require(inspected["summary"]?["bitsPerParameter"]?.double)
    let percent = (10000 * Double(3 * 64 * 64) / Double(parameters)).rounded() / 100
    let rounded = (bits * 100).rounded() / 100
    #expect(
      lines[1] == "quantized: 3 tensors to NF4 (\(percent) % of the parameters), \(rounded) bits per parameter in all")
    #expect(lines[2] == "kept: 1 embedding, 1 weight by --keep, 2 norms and biases, 1 output embedding")
    #expect(lines[3].wholeMatch(of: /[\d.]+ kB in, [\d.]+ kB out, [\d.]+ s, .*\/s/) != nil)
    let verbose = try Tool.run("quantize", model, "-o", out, "--force", "--dry-run", "--verbose", "-q")
    #expect(verbose.output.contains("\nkept: 1 output embedding: lm_head.weight\n"), "\(verbose.output)")
    // A run that quantizes nothing does not speak of it.
    #expect(try !Tool.run("convert", model, "-o", out, "--dry-run", "-q").output.contains("quantized"))
  }

  /// Bytes in are those of the files, not of the values that they stand for.
  @Test func bytesOfFiles() throws {
    let nf4 = try object("quantize", model, "-o", out)
    let data = try #require(object("inspect", out)["summary"]?["bytes"]?.int)
    let back = try object("convert", out, "-o", directory.path("back"))
    #expect(back["bytesIn"]?.int == data && data < (nf4["bytesIn"]?.int ?? 0))
    let wide = try object("convert", model, "-o", directory.path("wide"), "--dtype", "float32")
    #expect(wide["bytesIn"] == nf4["bytesIn"])
    #expect(
      try object("convert", directory.path("wide"), "-o", directory.path("half"), "--dtype", "bfloat16")["bytesIn"]?.int
        == 2 * (nf4["bytesIn"]?.int ?? 0))
  }

  /// Of a merge the adapter's files count, too, and a base in GGUF by its blocks.
  @Test func bytesOfMergesAndGGUF() throws {
    let base = try TestModel.llama(layers: 2).write(to: directory, "base")
    let adapter = try AdapterBuilder.llama(layers: 2).write(to: directory, "adapter")
    let size = try #require(
      FileManager.default.attributesOfItem(atPath: adapter + "/adapter_model.safetensors")[.size] as? Int)
    let plain = try #require(object("inspect", base)["summary"]?["bytes"]?.int)
    let merged = try object("merge", base, adapter, "-o", out)
    #expect(merged["bytesIn"]?.int == plain + size)
    let planned = try object("merge", base, adapter, "-o", out, "--force", "--dry-run")
    #expect(planned["bytesIn"] == merged["bytesIn"])
  }

  @Test func mergeByKind() throws {
    let base = try TestModel.llama(layers: 3).write(to: directory, "base")
    let adapter = try AdapterBuilder.llama(layers: 3, modules: ["self_attn.q_proj", "mlp.up_proj"]).write(
      to: directory, "adapter")
    let brief = try Tool.run("merge", base, adapter, "-o", out)
    let rows = brief.output.split(separator: "\n").map { $0.split(separator: " ", omittingEmptySubsequences: true) }
    #expect(rows[0].prefix(3) == ["tensors", "number", "adapter"], "\(brief.output)")
    #expect(rows[1].prefix(2) == ["model.layers.*.self_attn.q_proj.weight", "3"])
    #expect(rows[2].prefix(2) == ["model.layers.*.mlp.up_proj.weight", "3"] && rows[3].first == "wrote")
    #expect(rows[1].contains("%") && rows[1].contains("to"))
    let verbose = try Tool.run("merge", base, adapter, "-o", out, "--force", "--verbose")
    let names = verbose.output.split(separator: "\n").filter { $0.hasPrefix("model.layers.") }
    #expect(names.count == 6 && names.contains { $0.hasPrefix("model.layers.2.mlp.up_proj.weight ") })
    let json = try object("merge", base, adapter, "-o", out, "--force")
    #expect(json["changes"]?.array?.count == 6)
    #expect(try Tool.run("merge", base, adapter, "-o", out, "--force", "-q").output.hasPrefix("wrote"))
  }

  @Test func convert() throws {
    let planned = try object("convert", model, "-o", out, "--dtype", "float32", "--dry-run")
    let done = try object("convert", model, "-o", out, "--dtype", "float32")
    for key in keys(done) where key != "seconds" { #expect(planned[key] == done[key], "\(key)") }
    #expect(done["tensors"]?.int == 8)
  }

  @Test func inspect() throws {
    _ = try object("quantize", model, "-o", out)
    let listed = try object("inspect", out)
    #expect(keys(listed) == ["path", "container", "metadata", "tensors", "summary", "provenance"])
    #expect(try keys(object("inspect", model)) == ["path", "container", "metadata", "tensors", "summary"])
    #expect(listed["path"]?.string == out && listed["container"]?.string == "safetensors")
    #expect(listed["metadata"]?["format"]?.string == "pt")
    let rows = try #require(listed["tensors"]?.array)
    for row in rows { #expect(keys(row) == ["name", "dtype", "shape", "file", "offset", "bytes", "scheme"]) }
    #expect(rows.count == 8)
    let raw = try #require(try object("inspect", out, "--raw")["tensors"]?.array)
    #expect(raw.count == 28)
    let bytes = try directory.read("out/model.safetensors")
    let header = try SafetensorsHeader(ofFile: bytes)
    #expect(raw.map { $0["name"]?.string } == header.tensors.map(\.name.string))
    for row in raw { #expect(row["scheme"]?.isNull == true && row["file"]?.string == "model.safetensors") }
    for row in rows {
      let name = try #require(row["name"]?.string)
      let parts = raw.filter { $0["name"]?.string == name || $0["name"]?.string?.hasPrefix(name + ".") == true }
      #expect(row["bytes"]?.int == parts.reduce(0) { $0 + ($1["bytes"]?.int ?? 0) })
      #expect(row["offset"] == parts.first { $0["name"] == row["name"] }?["offset"])
      let isLinear = name.contains("_proj")
      #expect(row["dtype"]?.string == (isLinear ? "NF4" : "BF16"))
      #expect(row["scheme"]?.string == (isLinear ? "bitsandbytes-nf4" : nil))
      if isLinear { #expect(row["shape"]?.array?.map(\.int) == [64, 64] && parts.count == 6) }
    }
    let summary = try #require(listed["summary"])
    #expect(keys(summary) == ["tensors", "parameters", "bytes", "bitsPerParameter"])
    let parameters = 4 * 64 * 64 + 2 * 32 * 64 + 2 * 64
    #expect(summary["tensors"]?.int == 8 && summary["parameters"]?.int == parameters)
    let total = rows.reduce(0) { $0 + ($1["bytes"]?.int ?? 0) }
    #expect(summary["bytes"]?.int == total)
    #expect(abs(try #require(summary["bitsPerParameter"]?.double) - 8 * Double(total) / Double(parameters)) < 1e-5)
  }

  @Test func inspectOneFile() throws {
    let listed = try object("inspect", model + "/model.safetensors", "--tensor", "*q_proj*")
    let rows = try #require(listed["tensors"]?.array)
    #expect(rows.map { $0["name"]?.string } == (0..<2).map { "model.layers.\($0).self_attn.q_proj.weight" })
    #expect(rows.allSatisfy { $0["file"]?.string == "model.safetensors" })
    #expect(listed["summary"]?["tensors"]?.int == 2)
  }

  @Test func statistics() throws {
    _ = try object("quantize", model, "-o", out)
    let listed = try object("inspect", out, "--stats", "--against", model)
    for row in try #require(listed["tensors"]?.array) {
      let stats = try #require(row["stats"])
      let isLinear = row["scheme"]?.string != nil
      #expect(keys(stats) == ["min", "max", "mean", "std", "zeros", "nan", "inf"] + (isLinear ? ["error"] : []))
      #expect(try #require(stats["max"]?.double) <= 1.01 && stats["nan"]?.int == 0 && stats["inf"]?.int == 0)
      guard isLinear else { continue }
      #expect(keys(stats["error"]) == ["maxAbs", "rmse", "relativeMse"])
      // NF4 on a uniform distribution.
      let relative = try #require(stats["error"]?["relativeMse"]?.double)
      #expect((0.001...0.03).contains(relative))
    }
  }

  @Test func verify() throws {
    _ = try object("quantize", model, "-o", out)
    let good = try object("verify", out)
    #expect(keys(good) == ["ok", "tensorsChecked", "bytesChecked", "problems", "notChecked"])
    #expect(good["ok"]?.bool == true && good["tensorsChecked"]?.int == 28 && good["problems"]?.array?.count == 0)
    let sizes = try FileManager.default.contentsOfDirectory(atPath: out).reduce(0) { sum, name in
      sum + (try FileManager.default.attributesOfItem(atPath: out + "/" + name)[.size] as? Int ?? 0)
    }
    #expect(try #require(good["bytesChecked"]?.int) >= sizes)
    var bytes = try directory.read("out/model.safetensors")
    bytes[4096 + 100] ^= 4
    try directory.write("out/model.safetensors", bytes)
    let run = try Tool.run("verify", out, "--json")
    #expect(run.status == 1 && run.error == "")
    let bad = try #require(parse(run.output))
    #expect(bad["ok"]?.bool == false && bad["problems"]?.array?.count == 1)
    let problem = try #require(bad["problems"]?.array?.first)
    #expect(keys(problem) == ["file", "tensor", "problem"])
    #expect(problem["file"]?.string == "model.safetensors")
    let first = try SafetensorsHeader(ofFile: bytes).tensors[0].name.string
    #expect(problem["tensor"]?.string == first)
    let text = try Tool.run("verify", out)
    #expect(text.status == 1 && text.output.contains("model.safetensors: tensor '\(first)': digest is "))
  }

  /// Without a manifest it says what could not be checked.
  @Test func verifyForeignFiles() throws {
    let plain = try object("verify", model)
    #expect(plain["ok"]?.bool == true && plain["tensorsChecked"]?.int == 8)
    #expect(plain["notChecked"]?.array?.contains { $0.string?.contains("nibble-manifest.json") ?? false } == true)
  }

  @Test func metadata() throws {
    let run = try Tool.run("inspect", model, "--metadata")
    #expect(run.status == 0 && run.output == "format = pt\n")
  }

  @Test func table() throws {
    _ = try object("quantize", model, "-o", out)
    let lines = try Tool.run("inspect", out).output.split(separator: "\n")
    #expect(lines.count == 1 + 8 + 2)
    #expect(lines[0].hasPrefix("tensor"))
    #expect(
      lines.contains {
        $0.hasPrefix("model.layers.0.mlp.down_proj.weight") && $0.contains("NF4") && $0.contains("[64, 64]")
      })
    #expect(lines[9].contains("bits per parameter"))
    #expect(lines[10].hasPrefix("made from ") && lines[10].hasSuffix(" by nibble quantize (nf4)"))
  }
}
