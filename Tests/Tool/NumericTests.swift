import Foundation
import JSON
import Safetensors
import TestSupport
import Testing

/// Values that quantization must refuse, and values that it must survive.
@Suite struct NumericTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  private static let name = "model.layers.0.mlp.up_proj.weight"

  private func write(_ values: [Float], _ type: String, _ shape: [Int], as directoryName: String = "model") throws
    -> String
  {
    var model = TestModel([.init(Self.name, type, shape, TestModel.bytes(of: values, as: type))])
    model.tensors.append(TestModel.tensor("model.norm.weight", type, [8], seed: 1))
    return try model.write(to: directory, directoryName)
  }

  /// The bytes of one tensor of a checkpoint of one file.
  private func tensor(_ checkpoint: String, _ name: String) throws -> [UInt8] {
    let bytes = try directory.read("\(checkpoint)/model.safetensors")
    let header = try SafetensorsHeader(ofFile: bytes)
    let index = try #require(header.tensors.firstIndex { $0.name.string == name })
    return Array(bytes[header.range(of: index)])
  }

  // MARK: - Not finite

  struct BadValue: Sendable, CustomTestStringConvertible {
    var type: String
    var value: Float
    /// Of 5 × 13 = 65 values: the first block, and the one value of the second.
    var index: Int
    var testDescription: String { "\(value) as \(type) at \(index)" }
  }

  static let badValues = ["BF16", "F16", "F32", "F64"].flatMap { type in
    [Float.nan, .infinity, -.infinity].flatMap { value in
      [0, 63, 64].map { BadValue(type: type, value: value, index: $0) }
    }
  }

  @Test(arguments: badValues)
  func notFinite(_ row: BadValue) throws {
    var values = (0..<65).map { Float($0) / 64 }
    let good = try write(values, row.type, [5, 13], as: "good")
    values[row.index] = row.value
    let model = try write(values, row.type, [5, 13])
    let text = row.value.isNaN ? "nan" : row.value > 0 ? "inf" : "-inf"
    for options in [[], ["--no-double-quant", "--scheme", "fp4", "--block-size", "4096", "--jobs", "1"]] {
      let before = try Snapshot(directory.path)
      let run = try Tool.run(["quantize", model, "-o", directory.path("out"), "--json", "--quiet"] + options)
      Refusal(
        status: 65, message: "element \(row.index) is \(text), a model to be quantized must be finite",
        file: "model.safetensors",
        tensor: Self.name
      ).check(run, "quantize")
      #expect(try Snapshot(directory.path) == before)
    }
    #expect(try Tool.run("quantize", good, "-o", directory.path("out")).status == 0)
    // convert keeps every bit, inspect counts.
    #expect(try Tool.run("convert", model, "-o", directory.path("kept")).status == 0)
    #expect(try tensor("kept", Self.name) == tensor("model", Self.name))
    let stats = try #require(parse(Tool.run("inspect", model, "--stats", "--json").output))["tensors"]?.array?.first?[
      "stats"]
    #expect(stats?["nan"]?.int == (row.value.isNaN ? 1 : 0) && stats?["inf"]?.int == (row.value.isNaN ? 0 : 1))
  }

  /// What stays in floating point is looked at too.
  @Test(arguments: badValues.filter { $0.type != "F64" })
  func notFiniteButKept(_ row: BadValue) throws {
    var values = (0..<65).map { Float($0) / 64 }
    let good = try write(values, row.type, [5, 13], as: "good")
    values[row.index] = row.value
    let model = try write(values, row.type, [5, 13])
    let text = row.value.isNaN ? "nan" : row.value > 0 ? "inf" : "-inf"
    let run = try Tool.run("quantize", model, "-o", directory.path("out"), "--keep", "*up_proj", "--json", "--quiet")
    Refusal(
      status: 65, message: "element \(row.index) is \(text), a model to be quantized must be finite",
      file: "model.safetensors", tensor: Self.name
    ).check(run, "quantize")
    #expect(try Tool.run("quantize", good, "-o", directory.path("fine"), "--keep", "*up_proj").status == 0)
    #expect(try tensor("fine", Self.name) == tensor("good", Self.name))
  }

  @Test func overflowOfFloat16() throws {
    var values = [Float](repeating: 65504, count: 64)
    let good = try write(values, "F32", [8, 8], as: "good")
    #expect(try Tool.run("convert", good, "-o", directory.path("fine"), "--dtype", "float16").status == 0)
    values[37] = -65520
    let model = try write(values, "F32", [8, 8])
    let run = try Tool.run("convert", model, "-o", directory.path("out"), "--dtype", "float16", "--json", "--quiet")
    Refusal(
      status: 65, message: "element 37 is -65520.0, beyond the range of float16", file: "model.safetensors",
      tensor: Self.name
    ).check(run, "convert")
    #expect(try directory.names == ["fine", "good", "model"])
    // An infinity is no overflow.
    values[37] = -.infinity
    let infinite = try write(values, "F32", [8, 8], as: "infinite")
    #expect(try Tool.run("convert", infinite, "-o", directory.path("out"), "--dtype", "float16").status == 0)
  }

  // MARK: - Extremes

  @Test(arguments: ["nf4", "fp4"], [[], ["--no-double-quant"]])
  func zeros(_ scheme: String, _ options: [String]) throws {
    var values = [Float](repeating: 0, count: 65)
    values[1] = -0.0
    let model = try write(values, "BF16", [5, 13])
    #expect(try Tool.run(["quantize", model, "-o", directory.path("out"), "--scheme", scheme] + options).status == 0)
    // 65 codes of 0.0, and the code of 0.0 as the pad.
    #expect(try tensor("out", Self.name) == [UInt8](repeating: scheme == "nf4" ? 0x77 : 0, count: 33))
    #expect(try Tool.run("convert", directory.path("out"), "-o", directory.path("back")).status == 0)
    #expect(try tensor("back", Self.name).allSatisfy { $0 & 0x7F == 0 })
  }

  struct Extreme: Sendable, CustomTestStringConvertible {
    var testDescription: String
    var type: String
    var values: [Float]
  }

  static let extremes = [
    Extreme(
      testDescription: "largest F32", type: "F32",
      values: (0..<192).map { $0 % 3 == 0 ? .greatestFiniteMagnitude : -.greatestFiniteMagnitude }),
    Extreme(
      testDescription: "largest F32 beside zeros", type: "F32",
      values: (0..<192).map { $0 < 64 ? .greatestFiniteMagnitude : 0 }),
    Extreme(testDescription: "largest F16", type: "F16", values: (0..<192).map { $0 % 2 == 0 ? 65504 : -65504 }),
    Extreme(
      testDescription: "largest BF16", type: "BF16",
      values: [Float](repeating: Float(bitPattern: 0x7F7F_0000), count: 192)),
    Extreme(testDescription: "denormal F32", type: "F32", values: (0..<192).map { Float(bitPattern: UInt32($0 + 1)) }),
    Extreme(
      testDescription: "denormal F16", type: "F16", values: (0..<192).map { Float(Float16(bitPattern: UInt16($0 + 1))) }
    ),
    Extreme(
      testDescription: "one value in a thousand", type: "F32", values: (0..<192).map { $0 == 100 ? 1e30 : 1e-30 }),
    Extreme(testDescription: "-0.0", type: "BF16", values: [Float](repeating: -0.0, count: 192)),
  ]

  @Test(arguments: extremes, ["nf4", "fp4"])
  func extreme(_ row: Extreme, _ scheme: String) throws {
    let model = try write(row.values, row.type, [3, 64])
    for options in [[], ["--no-double-quant"]] {
      let run = try Tool.run(["quantize", model, "-o", directory.path("out"), "--scheme", scheme, "--force"] + options)
      #expect(run.status == 0, "\(run.error)")
      let verified = try Tool.run("verify", directory.path("out"), "--against", model)
      #expect(verified.status == 0, "\(verified.output)")
      guard options == ["--no-double-quant"] else { continue }
      // Without the second level nothing can exceed the block's own maximum.
      #expect(try Tool.run("convert", directory.path("out"), "-o", directory.path("back"), "--force").status == 0)
      let stats = try #require(parse(Tool.run("inspect", directory.path("back"), "--stats", "--json").output))[
        "tensors"]?.array?.first?["stats"]
      #expect(stats?["nan"]?.int == 0 && stats?["inf"]?.int == 0)
      let largest = Double(row.values.map(abs).max() ?? 0)
      #expect(try #require(stats?["max"]?.double) <= largest)
      #expect(try #require(stats?["min"]?.double) >= -largest)
    }
  }

  // MARK: - Odd sizes

  @Test(arguments: [[1, 1], [1, 63], [1, 65], [65, 1], [3, 5], [7, 9], [33, 65], [2, 4095], [4097, 1]])
  func oddSizes(_ shape: [Int]) throws {
    let count = shape.reduce(1, *)
    let values = (0..<count).map { Float($0 % 17 - 8) / 8 }
    let model = try write(values, "BF16", shape)
    for options in [[], ["--block-size", "4096"], ["--no-double-quant", "--block-size", "32", "--scheme", "fp4"]] {
      let run = try Tool.run(["quantize", model, "-o", directory.path("out"), "--force"] + options)
      #expect(run.status == 0, "\(run.error)")
      let codes = try tensor("out", Self.name)
      #expect(codes.count == (count + 1) / 2)
      if count % 2 == 1 { #expect(codes[codes.count - 1] & 0xF == (options.contains("fp4") ? 0 : 7)) }
      #expect(try Tool.run("verify", directory.path("out"), "--against", model).status == 0)
      #expect(try Tool.run("convert", directory.path("out"), "-o", directory.path("back"), "--force").status == 0)
      let back = try SafetensorsHeader(ofFile: directory.read("back/model.safetensors"))
      let info = try #require(back.tensors.first { $0.name.string == Self.name })
      #expect(info.shape == shape && info.type == .bf16)
    }
  }

  @Test func emptyTensors() throws {
    var model = TestModel(layers: 1)
    model.tensors.append(.init("model.layers.0.x_proj.weight", "BF16", [0, 64], []))
    model.tensors.append(.init("model.scalar", "F32", [], [0, 0, 128, 63]))
    let path = try model.write(to: directory)
    #expect(try Tool.run("quantize", path, "-o", directory.path("out")).status == 0)
    #expect(try Tool.run("verify", directory.path("out"), "--against", path).status == 0)
    let header = try SafetensorsHeader(ofFile: directory.read("out/model.safetensors"))
    #expect(header.tensors.first { $0.name.string == "model.layers.0.x_proj.weight" }?.shape == [0, 64])
  }

  /// Counts in the trainers' kernels are 32-bit: more values in one tensor are refused, before any is read.
  @Test func tooManyElements() throws {
    let size = 2 * ((1 << 31) + 64)
    let member = SafetensorsBuilder.member(Self.name, "F16", "[\(size / 128),64]", "[0,\(size)]")
    let header = SafetensorsBuilder.file("{\(member)}")
    try directory.write("model/model.safetensors", making: [])
    try directory.writeSparse("model/model.safetensors", header, size: header.count + size)
    let run = try Tool.run("quantize", directory.path("model"), "-o", directory.path("out"), "--json", "--quiet")
    Refusal(
      status: 69, message: "has 2147483712 elements, bitsandbytes counts at most 2^31", file: "model.safetensors",
      tensor: Self.name
    ).check(run, "quantize")
    #expect(run.bytesRead < 1 << 20, "\(run.bytesRead)")
    let kept = try Tool.run(
      "quantize", directory.path("model"), "-o", directory.path("out"), "--keep", "*", "--dry-run", "--json")
    #expect(kept.status == 0 && parse(kept.output)?["parameters"]?.int == 2_147_483_712)
  }

  // MARK: - 4-bit checkpoints that somebody else damaged

  struct BadWeight: Sendable, CustomTestStringConvertible {
    var testDescription: String
    var message: String
    var change: @Sendable (inout [SafetensorsBuilder.Tensor]) -> Void
  }

  private static func part(
    _ suffix: String, _ change: @escaping @Sendable (inout SafetensorsBuilder.Tensor) -> Void
  ) -> @Sendable (inout [SafetensorsBuilder.Tensor]) -> Void {
    { tensors in
      for index in tensors.indices where tensors[index].name == name + suffix { change(&tensors[index]) }
    }
  }

  private static func state(_ from: String, _ to: String) -> @Sendable (inout [SafetensorsBuilder.Tensor]) -> Void {
    part(".quant_state.bitsandbytes__nf4") { tensor in
      let text = String(decoding: tensor.data, as: UTF8.self).replacing(from, with: to)
      tensor.data = Array(text.utf8)
      tensor.shape = [tensor.data.count]
    }
  }

  private static func without(_ suffix: String) -> @Sendable (inout [SafetensorsBuilder.Tensor]) -> Void {
    { $0.removeAll { $0.name == name + suffix } }
  }

  static let badWeights: [BadWeight] = [
    BadWeight(testDescription: "no absmax", message: "'.absmax' is missing", change: without(".absmax")),
    BadWeight(testDescription: "no quant_map", message: "'.quant_map' is missing", change: without(".quant_map")),
    BadWeight(
      testDescription: "no nested_absmax", message: "'.nested_absmax' is missing", change: without(".nested_absmax")),
    BadWeight(
      testDescription: "no nested_quant_map", message: "'.nested_quant_map' is missing",
      change: without(".nested_quant_map")),
    BadWeight(testDescription: "no codes", message: "is itself missing", change: without("")),
    BadWeight(
      testDescription: "short absmax", message: "'.absmax' has shape [63], expected [64]",
      change: part(".absmax") {
        $0.data.removeLast()
        $0.shape = [63]
      }),
    BadWeight(
      testDescription: "absmax of another type", message: "'.absmax' is I8, allowed is U8",
      change: part(".absmax") { $0.dtype = "I8" }),
    BadWeight(
      testDescription: "short codes", message: "has 2047 bytes of codes, the quant_state's shape [64, 64] needs 2048",
      change: part("") {
        $0.data.removeLast()
        $0.shape = [2047, 1]
      }),
    BadWeight(
      testDescription: "short quant_map", message: "'.quant_map' has shape [15]",
      change: part(".quant_map") {
        $0.data.removeLast(4)
        $0.shape = [15]
      }),
    BadWeight(
      testDescription: "block size 0", message: "has blocksize 0, allowed are powers of two",
      change: state("\"blocksize\": 64", "\"blocksize\": 0")),
    BadWeight(
      testDescription: "block size 48", message: "has blocksize 48",
      change: state("\"blocksize\": 64", "\"blocksize\": 48")),
    BadWeight(
      testDescription: "larger block size", message: "'.absmax' has shape [64], expected [32]",
      change: state("\"blocksize\": 64", "\"blocksize\": 128")),
    BadWeight(
      testDescription: "other shape", message: "has 2048 bytes of codes, the quant_state's shape [64, 65]",
      change: state("[64, 64]", "[64, 65]")),
    BadWeight(
      testDescription: "shape that overflows", message: "overflows",
      change: state("[64, 64]", "[4294967296, 4294967296]")),
    BadWeight(testDescription: "negative shape", message: "no valid 'shape'", change: state("[64, 64]", "[-64, -64]")),
    BadWeight(
      testDescription: "shape of strings", message: "no valid 'shape'", change: state("[64, 64]", "[\"64\", 64]")),
    BadWeight(testDescription: "other dtype", message: "no valid 'dtype'", change: state("bfloat16", "float64")),
    BadWeight(
      testDescription: "fp4 under the name of nf4", message: "the quant_state says fp4, its name says nf4",
      change: state("\"nf4\"", "\"fp4\"")),
    BadWeight(
      testDescription: "nested block size 128", message: "nested_blocksize 128, bitsandbytes computes only with 256",
      change: state("\"nested_blocksize\": 256", "\"nested_blocksize\": 128")),
    BadWeight(
      testDescription: "offset NaN", message: "expected", change: state("\"nested_offset\": ", "\"nested_offset\": NaN")
    ),
    BadWeight(
      testDescription: "offset too large", message: "nested_offset is not finite",
      change: part(".quant_state.bitsandbytes__nf4") {
        $0.data = Array(
          String(decoding: $0.data, as: UTF8.self).replacing(/"nested_offset": [^}]*/, with: "\"nested_offset\": 1e39")
            .utf8)
        $0.shape = [$0.data.count]
      }),
    BadWeight(
      testDescription: "unknown key", message: "has the key 'x', which bitsandbytes refuses",
      change: state("\"quant_type\"", "\"x\": 1, \"quant_type\"")),
    BadWeight(
      testDescription: "key twice", message: "occurs twice",
      change: state("\"quant_type\"", "\"blocksize\": 64, \"quant_type\"")),
    BadWeight(
      testDescription: "no JSON", message: "not a JSON object",
      change: part(".quant_state.bitsandbytes__nf4") {
        $0.data = Array("[]".utf8)
        $0.shape = [2]
      }),
    BadWeight(
      testDescription: "quant_state of 1 MB", message: "its quant_state is U8 of 1000000 bytes",
      change: part(".quant_state.bitsandbytes__nf4") {
        $0.data = [UInt8](repeating: 0x20, count: 1_000_000)
        $0.shape = [1_000_000]
      }),
  ]

  /// Writes what `quantize` makes of a 64 × 64 weight, changed, and without a manifest.
  private func damaged(_ change: (inout [SafetensorsBuilder.Tensor]) -> Void) throws -> String {
    if try !directory.names.contains("out") {
      let model = try write((0..<4096).map { Float($0 % 31 - 15) / 15 }, "BF16", [64, 64])
      try #require(try Tool.run("quantize", model, "-o", directory.path("out")).status == 0)
    }
    let bytes = try directory.read("out/model.safetensors")
    let header = try SafetensorsHeader(ofFile: bytes)
    var tensors = header.tensors.indices.map { index in
      let info = header.tensors[index]
      return SafetensorsBuilder.Tensor(
        info.name.string, info.type.name, info.shape, Array(bytes[header.range(of: index)]))
    }
    change(&tensors)
    try directory.write("bad/model.safetensors", making: SafetensorsBuilder(tensors).bytes)
    try directory.write("bad/config.json", directory.read("out/config.json"))
    return directory.path("bad")
  }

  @Test(arguments: badWeights)
  func damagedWeight(_ row: BadWeight) throws {
    let path = try damaged(row.change)
    let refusal = Refusal(status: 65, message: row.message, file: "model.safetensors", tensor: Self.name)
    try refusal.check(path, in: directory, verbs: ["convert", "quantize"], options: ["--quiet"])
    // Those that only look say what is wrong and go on.
    let verified = try Tool.run("verify", path)
    #expect(verified.status == 1 && verified.output.contains(row.message), "\(verified.output)\(verified.error)")
    let listed = try Tool.run("inspect", path)
    #expect(listed.status == 0 && listed.error.contains(row.message), "\(listed.error)")
  }

  @Test func undamagedWeight() throws {
    let path = try damaged { _ in }
    #expect(try Tool.run("verify", path).status == 0)
    #expect(try Tool.run("convert", path, "-o", directory.path("back")).status == 0)
    #expect(try Tool.run("inspect", path).error == "")
    let refused = try Tool.run("quantize", path, "-o", directory.path("again"), "--json", "--quiet")
    Refusal(status: 69, message: "is already quantized (bitsandbytes 4-bit); --force-requantize").check(
      refused, "quantize")
    let again = try Tool.run("quantize", path, "-o", directory.path("again"), "--force-requantize", "--scheme", "fp4")
    #expect(again.status == 0, "\(again.error)")
  }

  // MARK: - Number of workers

  @Test func jobs() throws {
    var model = TestModel(layers: 3, width: 256)
    model.tensors.append(TestModel.tensor("model.layers.0.wide_proj.weight", "F64", [700, 300], seed: 77))
    model.tensors.append(TestModel.tensor("model.layers.1.wide_proj.weight", "F32", [1500, 401], seed: 78))
    let path = try model.write(to: directory)
    for verb in [
      ["quantize", "--max-shard-size", "300kB"], ["quantize", "--no-double-quant"], ["convert", "--dtype", "float32"],
    ] {
      let outputs = try ["1", "2", "5", "16"].map { jobs in
        let out = directory.path("out-\(jobs)")
        let run = try Tool.run([verb[0], path, "-o", out, "--jobs", jobs, "--force"] + verb.dropFirst())
        #expect(run.status == 0, "\(run.error)")
        return try Snapshot(out)
      }
      for output in outputs { #expect(output == outputs[0]) }
      let reports = try ["1", "5"].map {
        try Tool.run("verify", directory.path("out-1"), "--against", path, "--json", "--jobs", $0).output
      }
      #expect(reports[0] == reports[1] && reports[0].contains("\"ok\": true"))
      let stats = try ["1", "5"].map { try Tool.run("inspect", path, "--stats", "--json", "--jobs", $0).output }
      #expect(stats[0] == stats[1])
    }
  }
}
