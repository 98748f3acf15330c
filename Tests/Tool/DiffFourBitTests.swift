import Foundation
import JSON
import TestSupport
import Testing

/// `diff` where one or both checkpoints hold 4-bit weights.
@Suite struct DiffFourBitTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  @Test(arguments: ["nf4", "fp4"], [[], ["--no-double-quant", "--block-size", "128"]])
  func fourBit(_ scheme: String, _ options: [String]) throws {
    let model = try TestModel(layers: 1, width: 128).write(to: directory)
    let quantized = directory.path("quantized")
    try #require(try Tool.run(["quantize", model, "-o", quantized, "--scheme", scheme] + options).status == 0)
    let json = try Diff.compare(model, quantized)
    #expect(Diff.names(json["onlyInA"]).isEmpty && Diff.names(json["onlyInB"]).isEmpty)
    let changed = try #require(json["changed"]?.array)
    #expect(changed.count == 2)
    for change in changed {
      #expect(Diff.pair(change["dtype"]) == ["BF16", scheme.uppercased()])
      #expect(Diff.pair(change["shape"]) == ["[128, 128]", "[128, 128]"])
      let relative = try #require(change["relative"]?.double)
      #expect((0.03...0.3).contains(relative) && change["elements"]?.int == 128 * 128)
    }
    // What inspect says of the same two.
    let inspected = try #require(
      parse(Tool.run("inspect", quantized, "--stats", "--json", "--against", model).output)?["tensors"]?.array)
    for row in inspected {
      guard let error = row["stats"]?["error"] else { continue }
      let change = try #require(changed.first { $0["name"] == row["name"] })
      #expect(change["maxAbs"] == error["maxAbs"])
      let (relative, square) = (change["relative"]?.double ?? 0, error["relativeMse"]?.double ?? 0)
      #expect(abs(relative * relative - square) < 1e-12)
    }
    // The values that they stand for, in the dtype of the quant_state.
    let plain = directory.path("plain")
    try #require(try Tool.run("convert", quantized, "-o", plain).status == 0)
    let comparison = try Diff.compare(quantized, plain)
    #expect(comparison["changed"]?.array?.isEmpty == true && comparison["equal"]?.bool == false)
    let dequantized = try #require(comparison["sameValues"]?.array)
    #expect(dequantized.count == 2)
    #expect(dequantized.allSatisfy { Diff.pair($0["dtype"]) == [scheme.uppercased(), "BF16"] })
  }

  @Test func fourBitBesideFourBit() throws {
    let model = try TestModel(layers: 1).write(to: directory)
    func quantize(_ name: String, _ options: String...) throws -> String {
      let out = directory.path(name)
      try #require(try Tool.run(["quantize", model, "-o", out] + options).status == 0)
      return out
    }
    let a = try quantize("a")
    #expect(try Diff.compare(a, quantize("b", "--max-shard-size", "1kB"))["equal"]?.bool == true)
    // Packed otherwise, with the same values.
    #expect(try Diff.compare(a, quantize("c", "--quant-storage", "bfloat16"))["equal"]?.bool == true)
    let blocks = try #require(Diff.compare(a, quantize("d", "--block-size", "128"))["changed"]?.array)
    #expect(blocks.count == 2 && blocks.allSatisfy { Diff.pair($0["dtype"]) == ["NF4", "NF4"] })
    #expect(blocks.allSatisfy { ($0["differing"]?.int ?? 0) > 0 && $0["relative"]?.double != nil })
    let codes = try #require(Diff.compare(a, quantize("e", "--scheme", "fp4"))["changed"]?.array)
    #expect(codes.count == 2 && codes.allSatisfy { Diff.pair($0["dtype"]) == ["NF4", "FP4"] })
    // One code of one weight.
    let listed = try #require(parse(Tool.run("inspect", a, "--json").output)?["tensors"]?.array)
    let weight = try #require(listed.first { $0["scheme"]?.string != nil })
    var bytes = try directory.read("a/model.safetensors")
    bytes[try #require(weight["offset"]?.int) + 7] ^= 0x10
    try directory.write("flipped/model.safetensors", making: bytes)
    let flipped = try Diff.change(a, directory.path("flipped"))
    #expect(flipped["name"] == weight["name"] && flipped["differing"]?.int == 1)
  }

  /// GPT-2 stores `[in, out]`, its 4-bit weights are `[out, in]`. Of a square one only the configuration
  /// of either side tells.
  @Test func conv1D() throws {
    let names = [
      "attn.c_attn": [64, 192], "attn.c_proj": [64, 64], "mlp.c_fc": [64, 256], "mlp.c_proj": [256, 64],
    ]
    let norms = ["h.0.ln_1", "h.0.ln_2", "ln_f"]
    var model = TestModel(
      names.sorted { $0.key < $1.key }.flatMap { name, shape in
        [
          TestModel.tensor("h.0.\(name).weight", "BF16", shape, seed: UInt64(shape[0] + shape[1])),
          TestModel.tensor("h.0.\(name).bias", "BF16", [shape[1]], seed: UInt64(shape[1])),
        ]
      }
        + norms.flatMap { name in
          ["weight", "bias"].map { TestModel.tensor("\(name).\($0)", "BF16", [64], seed: 5) }
        } + [
          TestModel.tensor("wte.weight", "BF16", [32, 64], seed: 3),
          TestModel.tensor("wpe.weight", "BF16", [16, 64], seed: 4),
        ])
    model.config =
      "{\"architectures\": [\"GPT2LMHeadModel\"], \"model_type\": \"gpt2\", \"dtype\": \"bfloat16\", "
      + "\"n_embd\": 64, \"n_layer\": 1, \"n_head\": 4, \"n_positions\": 16, \"vocab_size\": 32}"
    let source = try model.write(to: directory)
    let quantized = directory.path("quantized")
    try #require(try Tool.run("quantize", source, "-o", quantized).status == 0)
    for (a, b) in [
      (source, quantized), (source + "/model.safetensors", quantized), (source, quantized + "/model.safetensors"),
    ] {
      let forward = try #require(Diff.compare(a, b)["changed"]?.array)
      let backward = try #require(Diff.compare(b, a)["changed"]?.array)
      #expect(forward.count == names.count && backward.count == names.count)
      for change in forward + backward {
        let shape = try #require(names.first { change["name"]?.string?.contains($0.key) == true }?.value)
        #expect(Diff.pair(change["shape"]) == [String](repeating: "\(shape.reversed() as [Int])", count: 2))
        #expect(try #require(change["relative"]?.double) < 0.2, "\(change)")
      }
    }
    let plain = directory.path("plain")
    try #require(try Tool.run("convert", quantized, "-o", plain).status == 0)
    #expect(try Diff.compare(quantized, plain)["changed"]?.array?.isEmpty == true)
    for change in try #require(Diff.compare(source, plain)["changed"]?.array) {
      let shape = try #require(names.first { change["name"]?.string?.contains($0.key) == true }?.value)
      #expect(Diff.pair(change["shape"])[0] == "\(shape)")
    }
  }

  /// A weight that is 4-bit in one and has another shape in the other.
  @Test func fourBitOfAnotherShape() throws {
    let (a, b) = try (write(columns: 96, "a"), write(columns: 128, "b"))
    try #require(try Tool.run("quantize", b, "-o", directory.path("q")).status == 0)
    let changed = try Diff.change(a, directory.path("q"))
    #expect(Diff.pair(changed["shape"]) == ["[64, 96]", "[64, 128]"] && changed["elements"]?.isNull == true)
  }

  private func write(columns: Int, _ name: String) throws -> String {
    let weight = TestModel.tensor("model.layers.0.mlp.up_proj.weight", "BF16", [64, columns], seed: 1)
    return try TestModel([weight]).write(to: directory, name)
  }
}
