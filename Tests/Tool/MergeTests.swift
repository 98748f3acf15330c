import Foundation
import JSON
import Safetensors
import TestSupport
import Testing

/// What `merge` is given: directories of other kinds, links, configurations, adapters that are in the base already.
@Suite struct MergeTests: MergeTesting {
  let directory: TemporaryDirectory
  let base: String
  let adapter: String
  let out: String

  init() throws {
    directory = try TemporaryDirectory()
    base = try TestModel.llama().write(to: directory, "base")
    adapter = try AdapterBuilder.llama().write(to: directory)
    out = directory.path("out")
  }

  // MARK: - Something else than a base and an adapter

  @Test func wrongKinds() throws {
    try refuse(66, "holds no 'adapter_config.json': it is not a PEFT adapter", base)
    try refuse(65, "is a file; an adapter is the directory with", adapter + "/adapter_model.safetensors")
    try refuse(65, "is a file; an adapter is the directory with", adapter + "/adapter_config.json")
    try refuse(66, "holds no 'adapter_config.json'", directory.makeDirectory("empty"))
    try refuse(66, "nowhere: ", directory.path("nowhere"))
    try refuse(66, "nowhere: ", base: directory.path("nowhere"), adapter)
    try refuse(66, "holds no safetensors file", base: directory.path("empty"), adapter)
    // As a base it has none of the adapter's modules.
    try refuse(65, "is an adapter; the first path is that of the model", base: adapter, adapter)
    try refuse(65, "is an adapter", base: adapter + "/adapter_model.safetensors", adapter)
    let twin = try merge(nil, adapter)
    #expect(twin.json?["changes"]?.array?.count == 4)
  }

  /// A base that is one file has no class; names are enough.
  @Test func baseAsAFile() throws {
    let run = try merge(base + "/model.safetensors", adapter)
    #expect(run.json?["changes"]?.array?.count == 4)
  }

  @Test(arguments: ["config.json", "adapter_config.json"])
  func classOfTheBaseIsNotTaken(_ name: String) throws {
    var builder = AdapterBuilder.llama()
    builder.files = [("config.json", Array("{\"architectures\": [\"GPT2LMHeadModel\"]}".utf8))]
    let other = try builder.write(to: directory, "with-config")
    let bytes = try directory.read("base/config.json")
    try merge(nil, other)
    #expect(try directory.read("out/config.json").count >= bytes.count)
    #expect(String(decoding: try directory.read("out/config.json"), as: UTF8.self).contains("LlamaForCausalLM"))
  }

  @Test(arguments: [
    (["--weight", "x"], "option '--weight': 'x' is not a number"), (["--weight", "nan"], "is not a number"),
    (["--weight", "inf"], "is not a number"),
    (["--weight", "1", "--weight", "2"], "option '--weight' is given 2 times for 1 adapter:"),
    (["--combine", "ties"], "needs at least two adapters"), (["--combine", "tiez"], "did you mean 'ties'?"),
    (["--density", "0.5"], "option '--density' goes with '--combine'"),
    (["--density", "1.5"], "is not a number from 0 to 1"),
    (["--seed", "1"], "option '--seed' goes with '--combine'"),
    (["--rounding", "twice"], "is not one of peft, once, peft-safe"),
    (["--scheme", "nf5"], "did you mean 'nf4'?"), (["--expert-layout", "x"], "is not one of peft, unsloth-old"),
    (["--scheme", "nf4", "--dtype", "float16"], "exclude each other"),
    (["--base-as-trained", "nf4x"], "did you mean 'nf4'?"),
  ])
  func mistake(_ options: [String], _ message: String) throws {
    try refuse(2, message, adapter, options: options)
  }

  @Test func operandsAreMissing() throws {
    let none = try Tool.run("merge", "-o", out)
    #expect(none.status == 2 && none.error == "nibble: error: BASE is missing; see 'nibble merge --help'\n")
    let one = try Tool.run("merge", base, "-o", out)
    #expect(one.status == 2 && one.error == "nibble: error: ADAPTER is missing; see 'nibble merge --help'\n")
    #expect(try Tool.run("merge", base, adapter).status == 2)
  }

  // MARK: - Truncation and links

  @Test func truncated() throws {
    let whole = try directory.read("adapter/adapter_model.safetensors")
    let cut = try AdapterBuilder.llama().write(to: directory, "cut")
    for count in [0, 7, 8, 100, 1000, whole.count - 1] {
      try directory.write("cut/adapter_model.safetensors", Array(whole.prefix(count)))
      try refuse(65, "adapter_model.safetensors: ", cut)
    }
    try directory.write("cut/adapter_model.safetensors", whole)
    try merge(nil, cut)
  }

  @Test(arguments: [AdapterBuilder.configName, AdapterBuilder.weightsName])
  func links(_ name: String) throws {
    let linked = try AdapterBuilder.llama().write(to: directory, "linked")
    let path = linked + "/" + name
    for target in ["/etc/hostname", "../adapter/" + name, "nowhere", name, "/dev/zero"] {
      try FileManager.default.removeItem(atPath: path)
      try FileManager.default.createSymbolicLink(atPath: path, withDestinationPath: target)
      try refuse(65, "is a symbolic link to '\(target)'", linked)
    }
    try FileManager.default.removeItem(atPath: path)
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
    try refuse(66, "holds no '\(name)'", linked)
    // The way to the adapter may lead over a link.
    try FileManager.default.createSymbolicLink(atPath: directory.path("way"), withDestinationPath: "adapter")
    try merge(nil, directory.path("way"))
  }

  /// A snapshot of the Hugging Face cache, whose files are links into its blobs.
  @Test func cache() throws {
    for (number, name) in [AdapterBuilder.configName, AdapterBuilder.weightsName].enumerated() {
      let blob = "0123abc\(number)"
      try directory.write("models--x--y/blobs/\(blob)", making: directory.read("adapter/" + name))
      try directory.write("models--x--y/snapshots/89ab/x", making: [])
      try FileManager.default.createSymbolicLink(
        atPath: directory.path("models--x--y/snapshots/89ab/" + name), withDestinationPath: "../../blobs/" + blob)
    }
    try merge(nil, directory.path("models--x--y/snapshots/89ab"))
    try merge(nil, adapter, to: "out2")
    #expect(try directory.read("out/model.safetensors") == directory.read("out2/model.safetensors"))
  }

  // MARK: - Configuration

  /// Names of libraries and paths in a configuration lead nowhere.
  @Test(.enabled(if: Machine.canTrace, "\(Machine.needsStrace)"))
  func nothingElseIsOpened() throws {
    var builder = AdapterBuilder.llama()
    let secret = try directory.makeDirectory("secret")
    try directory.write("secret/adapter_config.json", Array(builder.json.utf8))
    builder.set("base_model_name_or_path", "\"\(secret)\"")
    builder.set("auto_mapping", "{\"base_model_class\": \"X\", \"parent_library\": \"os\"}")
    builder.set("megatron_core", "\"../../../etc/passwd\"")
    let path = try builder.write(to: directory, "hooks")
    let log = directory.path("log")
    let run = try Tool.run(
      ["merge", base, path, "-o", out, "--quiet"],
      through: ["strace", "-f", "-qq", "-o", log, "-e", "trace=open,openat,openat2,execve,connect,socket"])
    #expect(run.status == 0, "\(run.error)")
    let calls = try String(contentsOfFile: log, encoding: .utf8).split(separator: "\n")
    #expect(calls.filter { $0.contains("execve(") }.count == 1)
    for call in calls {
      #expect(!call.contains("connect(") && !call.contains("socket("), "\(call)")
      #expect(!call.contains("secret") && !call.contains("passwd"), "\(call)")
    }
    #expect(calls.contains { $0.contains("adapter_config.json") })
  }

  /// A backtracking engine takes minutes for this name.
  @Test(arguments: ["rank_pattern", "alpha_pattern"], ["(a+)+$", "(a|aa)+$", "(a*)*b", "(.*a){12}$"])
  func patternsTakeNoTime(_ key: String, _ pattern: String) throws {
    for (name, last) in [("hit", "a"), ("miss", "c")] {
      let module = "model.layers.0." + String(repeating: "a", count: 39) + last
      let model = try TestModel([TestModel.tensor("\(module).weight", "BF16", [16, 8], seed: 1)]).write(
        to: directory, name)
      var builder = AdapterBuilder(AdapterBuilder.linear(module, [16, 8]), alpha: 4)
      builder.set("target_modules", "\"\(pattern)\"")
      builder.set(key, "{\"\(pattern)\": 4}")
      let path = try builder.write(to: directory, "adapter-\(name)")
      #expect(try merge(model, path, to: "out-\(name)").run.status == 0)
    }
  }

  /// A pattern for each module costs nothing, whatever the model; large expressions for many are refused.
  @Test func manyPatterns() throws {
    let modules = (0..<200).map { "model.layers.\($0).block." + String(repeating: "a", count: 40) }
    let model = try TestModel(modules.map { TestModel.tensor("\($0).weight", "BF16", [2, 2], seed: 1) }).write(
      to: directory, "many")
    var builder = AdapterBuilder(modules.flatMap { AdapterBuilder.linear($0, [2, 2], rank: 1) }, rank: 1)
    builder.set("alpha_pattern", "{" + modules.map { "\"\($0)\": 4" }.joined(separator: ", ") + "}")
    let literal = try builder.write(to: directory, "literal")
    #expect(try merge(model, literal, to: "literal-out").run.status == 0)
    let letters = String(repeating: "(a|b|c)?", count: 400)
    builder.set("alpha_pattern", "{" + (0..<20).map { "\"\(letters)x{\($0)}\": 4" }.joined(separator: ", ") + "}")
    let large = try builder.write(to: directory, "large")
    try refuse(69, "spell the modules out", base: model, large)
  }

  @Test func scalesAreTold() throws {
    var builder = AdapterBuilder.llama(alpha: 8)
    builder.set("alpha_pattern", "{\"layers.0.*\": 16, \"q_proj\": 2}")
    let path = try builder.write(to: directory, "patterns")
    let changes = try #require(try merge(nil, path).json?["changes"]?.array)
    #expect(
      changes.map { $0["tensor"]?.string } == [
        "model.layers.0.self_attn.q_proj.weight", "model.layers.0.mlp.down_proj.weight",
        "model.layers.1.self_attn.q_proj.weight", "model.layers.1.mlp.down_proj.weight",
      ])
    #expect(changes.map { $0["scale"]?.double } == [4, 4, 0.5, 2])
    for change in changes {
      #expect(change.object?.keys.map { $0 } == ["tensor", "adapter", "scale", "relativeChange"])
      #expect(change["adapter"]?.string == "patterns")
      #expect(try #require(change["relativeChange"]?.double) > 0.1)
    }
  }

  // MARK: - Twice

  @Test func sameAdapterTwice() throws {
    let copy = try AdapterBuilder.llama().write(to: directory, "copy")
    for other in [adapter, copy, adapter + "/"] {
      try refuse(
        65, "is the same adapter as '\(adapter)'; give it once, with --weight 2 if that is meant", adapter, other)
    }
    try merge(nil, adapter, options: ["--weight", "2"])
    let other = try AdapterBuilder.llama(seed: 7).write(to: directory, "other")
    try merge(nil, adapter, other, to: "out2")
  }

  @Test func mergedAlready() throws {
    let other = try AdapterBuilder.llama(seed: 7).write(to: directory, "other")
    try merge(nil, adapter, to: "one")
    try refuse(
      65, "is merged into '\(directory.path("one"))' already, as its nibble-manifest.json says",
      base: directory.path("one"), adapter)
    try merge(directory.path("one"), other, to: "two")
    for path in [adapter, other] { try refuse(65, "is merged into", base: directory.path("two"), path) }
    let manifest = try #require(parse(String(decoding: directory.read("two/nibble-manifest.json"), as: UTF8.self)))
    #expect(manifest["options"]?["adapters"]?.array?.map { $0["name"]?.string } == ["adapter", "other"])
    // A manifest that cannot be read tells nothing.
    try directory.write("one/nibble-manifest.json", Array("{\"options\": [".utf8))
    try merge(directory.path("one"), adapter, to: "again")
  }

  @Test func oneTensorReplacedByTwo() throws {
    let paths = try (0..<3).map { number in
      var builder = AdapterBuilder.llama(seed: UInt64(number))
      builder.add("lm_head.weight", [48, 32], seed: number == 2 ? 0 : UInt64(number))
      return try builder.write(to: directory, "head\(number)")
    }
    try refuse(
      65, "replaces 'lm_head.weight', which 'head0' replaces too", tensor: "base_model.model.lm_head.weight", paths[0],
      paths[1])
    try merge(nil, paths[0], paths[2])
  }

  // MARK: - Quantized bases

  @Test func quantizedBase() throws {
    let quantized = directory.path("nf4")
    #expect(try Tool.run("quantize", base, "-o", quantized).status == 0)
    try merge(quantized, adapter)
    let file = try SafetensorsHeader(ofFile: directory.read("out/model.safetensors"))
    #expect(file.tensors.count == 21 && file.tensors.allSatisfy { $0.type == .bf16 })
    #expect(!String(decoding: try directory.read("out/config.json"), as: UTF8.self).contains("quantization_config"))
    try merge(quantized, adapter, to: "again", options: ["--scheme", "nf4"])
    #expect(String(decoding: try directory.read("again/config.json"), as: UTF8.self).contains("quantization_config"))
    try refuse(2, "is for a 16-bit base", base: quantized, adapter, options: ["--base-as-trained", "nf4"])
  }
}
