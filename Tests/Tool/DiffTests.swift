import Foundation
import JSON
import TestSupport
import Testing

/// What `diff` says about pairs of checkpoints.
@Suite struct DiffTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  private typealias Tensor = SafetensorsBuilder.Tensor

  /// One file of these tensors.
  private func write(_ tensors: [Tensor], _ name: String) throws -> String {
    try directory.write("\(name).safetensors", SafetensorsBuilder(tensors).bytes)
  }

  /// One file of one tensor.
  private func write(_ values: [Float], _ type: String, _ shape: [Int], _ name: String) throws -> String {
    try write([Tensor("w", type, shape, TestModel.bytes(of: values, as: type))], name)
  }

  // MARK: - Equal

  @Test func equal() throws {
    let model = TestModel(layers: 2)
    let a = try model.write(to: directory, "a")
    // Other shards, another order, no configuration: the same tensors.
    var other = model
    other.config = nil
    let tensors = Array(model.tensors.reversed())
    let b = try other.write(to: directory, "b", shards: [Array(tensors.prefix(3)), Array(tensors.dropFirst(3))])
    let json = try Diff.compare(a, b)
    #expect(json["equal"]?.bool == true && json["changed"]?.array?.isEmpty == true)
    let text = try Tool.run("diff", a, b)
    #expect(text.status == 0 && text.output == "equal: 8 tensors\n" && text.error == "")
    let file = try Tool.run("diff", a + "/model.safetensors", b)
    #expect(file.status == 0 && file.output == text.output)
  }

  @Test func samePathTwice() throws {
    let model = try TestModel(layers: 1).write(to: directory)
    let run = try Tool.run("diff", model, model)
    #expect(run.status == 0 && run.output == "equal: 5 tensors\n")
    #expect(run.warnings == ["nibble: warning: \(model) and \(model) are the same files"])
    #expect(try Tool.run("diff", model, model, "--quiet").error == "")
    #expect(Diff.names(try Diff.compare(model, model + "/model.safetensors")["warnings"]).count == 1)
  }

  @Test func emptyTensorsAndFiles() throws {
    let a = try write([Tensor("x", "BF16", [0, 64], []), Tensor("y", "F32", [], [0, 0, 128, 63])], "a")
    let b = try write([Tensor("x", "BF16", [0, 64], []), Tensor("y", "F32", [], [0, 0, 128, 63])], "b")
    #expect(try Diff.compare(a, b)["equal"]?.bool == true)
    let c = try write([Tensor("x", "F32", [0, 64], []), Tensor("y", "F32", [], [0, 0, 128, 63])], "c")
    let empty = try Diff.compare(a, c)
    #expect(empty["changed"]?.array?.isEmpty == true && empty["equal"]?.bool == false)
    #expect(empty["sameValues"]?.array?.map { Diff.pair($0["dtype"]) } == [["BF16", "F32"]])
    let none = try write([], "none")
    #expect(try Diff.compare(none, none)["equal"]?.bool == true)
    #expect(Diff.names(try Diff.compare(a, none)["onlyInA"]) == ["x", "y"])
  }

  // MARK: - Names, dtypes, shapes

  @Test func onlyInOne() throws {
    let model = TestModel(layers: 1)
    let a = try model.write(to: directory, "a")
    var other = model
    other.tensors.removeAll { $0.name == "lm_head.weight" }
    other.tensors.append(TestModel.tensor("z.bias", "BF16", [8], seed: 9))
    other.tensors.insert(TestModel.tensor("y.bias", "BF16", [8], seed: 9), at: 0)
    let b = try other.write(to: directory, "b")
    let json = try Diff.compare(a, b)
    #expect(Diff.names(json["onlyInA"]) == ["lm_head.weight"] && Diff.names(json["onlyInB"]) == ["y.bias", "z.bias"])
    #expect(json["changed"]?.array?.isEmpty == true)
    let text = try Tool.run("diff", a, b)
    #expect(text.status == 1)
    let lines = ["only in A: lm_head.weight", "only in B: y.bias", "only in B: z.bias"]
    let summary = "different: 0 changed, 1 only in A, 2 only in B, 4 equal"
    #expect(text.output == (lines + [summary]).map { "\($0)\n" }.joined())
    let reversed = try Diff.compare(b, a)
    #expect(reversed["onlyInA"] == json["onlyInB"] && reversed["onlyInB"] == json["onlyInA"])
  }

  /// Another dtype is a difference, and no change of a value.
  @Test(arguments: ["F32", "F64", "F16"])
  func dtype(_ type: String) throws {
    let values = (0..<96).map { Float($0) / 4 - 8 }
    let a = try write(values, type, [8, 12], "a")
    let b = try write(values, "BF16", [8, 12], "b")
    let json = try Diff.compare(a, b)
    #expect(json["equal"]?.bool == false && json["changed"]?.array?.isEmpty == true)
    let same = try #require(json["sameValues"]?.array?.first)
    #expect(same.object.map { Array($0.keys) } == ["name", "dtype"] && same["name"]?.string == "w")
    #expect(Diff.pair(same["dtype"]) == [type, "BF16"])
    let text = try Tool.run("diff", a, b)
    #expect(text.status == 1 && text.output.hasPrefix("same values, \(type) → BF16: 1 tensor, w\n"), "\(text.output)")
    let line = "different: 0 changed, 1 of the same values in another dtype, 0 only in A, 0 only in B, 0 equal\n"
    #expect(text.output.hasSuffix(line))
    // One value apart, and it is a change of values.
    let other = try write(values.map { $0 == 3 ? 3.5 : $0 }, "BF16", [8, 12], "c")
    #expect(try Diff.change(a, other)["differing"]?.int == 1)
    #expect(try Diff.compare(a, other)["sameValues"]?.array?.isEmpty == true)
  }

  // MARK: - Many

  /// Two layers, in the second of which everything changed more.
  private func layers() throws -> (a: String, b: String) {
    func tensors(_ change: Float) -> [Tensor] {
      (0..<3).flatMap { layer -> [Tensor] in
        let value = 1 + change * Float(layer) / 8
        return [
          Tensor("model.layers.\(layer).up.weight", "F32", [1], TestModel.bytes(of: [value], as: "F32")),
          Tensor(
            "model.layers.\(layer).norm", change == 0 ? "F32" : "BF16", [1],
            TestModel.bytes(of: [2], as: change == 0 ? "F32" : "BF16")),
        ]
      } + [Tensor(change == 0 ? "a" : "b", "F32", [1], TestModel.bytes(of: [1], as: "F32"))]
    }
    return (try write(tensors(0), "many-a"), try write(tensors(1), "many-b"))
  }

  @Test func top() throws {
    let (a, b) = try layers()
    let all = try #require(Diff.compare(a, b)["changed"]?.array)
    #expect(all.map { $0["name"]?.string } == [2, 1].map { "model.layers.\($0).up.weight" })
    let one = try Diff.compare(a, b, "--top", "1")
    #expect(one["changed"]?.array == [all[0]] && one["sameValues"]?.array?.count == 3)
    let text = try Tool.run("diff", a, b, "--top=1")
    #expect(text.status == 1 && text.output.contains("model.layers.2.up.weight"))
    #expect(!text.output.contains("layers.1.up") && text.output.contains("\nand 1 that changed less\n"))
    #expect(text.output.contains("different: 2 changed, "))
    let more = try Tool.run("diff", a, b, "--top=2")
    #expect(more.output == (try Tool.run("diff", a, b).output))
  }

  @Test func summary() throws {
    let (a, b) = try layers()
    let text = try Tool.run("diff", a, b, "--summary")
    let lines = text.output.split(separator: "\n").map { $0.split(separator: " ", omittingEmptySubsequences: true) }
    #expect(text.status == 1)
    #expect(lines[1] == ["model.layers.*.up.weight", "2", "0.25", "-", "-", "-", "1"])
    #expect(lines[2] == ["a", "-", "-", "-", "1", "-", "-"] && lines[3].first == "b")
    #expect(lines[4] == ["model.layers.*.norm", "-", "-", "3", "-", "-", "-"] && lines.count == 6)
    let run = try Tool.run("diff", a, b, "--summary", "--json")
    let kinds = try #require(parse(run.output)?["kinds"]?.array)
    #expect(kinds.count == 4 && kinds[0]["changed"]?.int == 2 && kinds[0]["equal"]?.int == 1)
    #expect(kinds[0]["relative"]?.double == 0.25 && kinds[3]["sameValues"]?.int == 3)
    let equal = try Tool.run("diff", a, a, "--summary", "-q")
    #expect(equal.status == 0 && equal.output == "equal: 7 tensors\n")
  }

  @Test func dtypesWithNothingInCommon() throws {
    let a = try write([Tensor("w", "I32", [2], Array(repeating: 0, count: 8))], "a")
    let b = try write([1, 2], "F32", [2], "b")
    let changed = try Diff.change(a, b)
    #expect(Diff.pair(changed["dtype"]) == ["I32", "F32"] && changed["elements"]?.int == 2)
    for key in ["differing", "maxAbs", "relative"] { #expect(changed[key]?.isNull == true) }
  }

  @Test func shape() throws {
    let a = try write((0..<12).map(Float.init), "F32", [3, 4], "a")
    let b = try write((0..<12).map(Float.init), "F32", [4, 3], "b")
    let changed = try Diff.change(a, b)
    #expect(Diff.pair(changed["shape"]) == ["[3, 4]", "[4, 3]"] && Diff.pair(changed["dtype"]) == ["F32", "F32"])
    for key in ["elements", "differing", "maxAbs", "relative"] { #expect(changed[key]?.isNull == true) }
    let text = try Tool.run("diff", a, b)
    #expect(text.status == 1 && text.output.contains("w       F32    [3, 4] → [4, 3]  "), "\(text.output)")
  }

  // MARK: - Values

  @Test(arguments: ["BF16", "F16", "F32", "F64"], ["BF16", "F16", "F32", "F64"])
  func values(_ aType: String, _ bType: String) throws {
    var values = [Float](repeating: 0, count: 300_000)
    values[0] = 3
    values[150_000] = -4
    let a = try write(values, aType, [300, 1000], "a")
    values[299_999] = 2
    values[150_000] = -4.5
    let changed = try Diff.change(a, try write(values, bType, [300, 1000], "b"))
    #expect(changed["elements"]?.int == 300_000 && changed["differing"]?.int == 2)
    #expect(changed["maxAbs"]?.double == 2)
    #expect(changed["relative"]?.double == 4.25.squareRoot() / 5)
  }

  /// 0 is -0, an infinity itself, a NaN one of the same bits; beside anything else they have no distance.
  @Test func specialValues() throws {
    let a = try write([0, -0.0, .infinity, .nan, 1, 2], "F32", [6], "a")
    #expect(try Diff.compare(a, write([-0.0, 0, .infinity, .nan, 1, 2], "F32", [6], "b"))["equal"]?.bool == true)
    let beside = try Diff.change(a, write([0, 0, .infinity, 7, 1, 2], "F32", [6], "c"))
    #expect(beside["differing"]?.int == 1 && beside["maxAbs"]?.isNull == true && beside["relative"]?.isNull == true)
    let infinite = try Diff.change(a, write([0, 0, -.infinity, .nan, 1, 5], "F32", [6], "d"))
    #expect(infinite["differing"]?.int == 2 && infinite["maxAbs"]?.isNull == true)
    let finite = try Diff.change(a, write([0, 0, .infinity, .nan, 1, 5], "F32", [6], "e"))
    #expect(finite["maxAbs"]?.double == 3 && finite["relative"]?.double == 3 / 5.0.squareRoot())
    let text = try Tool.run("diff", a, directory.path("c.safetensors"))
    #expect(text.output.contains("1        -         -\n"), "\(text.output)")
    let fromZero = try Diff.change(write([0, 0], "F32", [2], "f"), write([0, 1], "F32", [2], "g"))
    #expect(fromZero["maxAbs"]?.double == 1 && fromZero["relative"]?.isNull == true)
  }

  @Test func otherTypes() throws {
    func file(_ name: String, _ tensors: (String, [Int], [UInt8])...) throws -> String {
      try write(tensors.map { Tensor($0.0, $0.0, $0.1, $0.2) }, name)
    }
    let minimum: [UInt8] = [0, 0, 0, 0, 0, 0, 0, 0x80]
    let maximum: [UInt8] = [255, 255, 255, 255, 255, 255, 255, 0x7F]
    let a = try file(
      "a", ("I64", [2], minimum + [3, 0, 0, 0, 0, 0, 0, 0]), ("U8", [4], [0, 1, 2, 3]), ("BOOL", [2], [0, 1]),
      ("F8_E4M3", [2], [0x00, 0x38]), ("F4", [4], [0x12, 0x34]))
    let b = try file(
      "b", ("I64", [2], maximum + [3, 0, 0, 0, 0, 0, 0, 0]), ("U8", [4], [0, 1, 2, 5]), ("BOOL", [2], [1, 1]),
      ("F8_E4M3", [2], [0x80, 0x38]), ("F4", [4], [0x12, 0x35]))
    let changed = try #require(Diff.compare(a, b)["changed"]?.array)
    #expect(changed.compactMap { $0["name"]?.string } == ["BOOL", "F4", "F8_E4M3", "I64", "U8"])
    #expect(changed.compactMap { $0["elements"]?.int } == [2, 4, 2, 2, 4])
    #expect(changed.allSatisfy { $0["differing"]?.int == 1 })
    #expect(changed.prefix(3).allSatisfy { $0["maxAbs"]?.isNull == true && $0["relative"]?.isNull == true })
    #expect(changed[3]["maxAbs"]?.double == 0x1p64 && changed[4]["maxAbs"]?.double == 2)
    #expect(changed[4]["relative"]?.double == 2 / 14.0.squareRoot())
  }

  @Test func largestChangeFirst() throws {
    func model(_ scale: [Float]) -> [Tensor] {
      scale.enumerated().map { index, scale in
        Tensor("t\(index)", "F32", [2], TestModel.bytes(of: [scale, scale], as: "F32"))
      }
    }
    let a = try write(model([1, 1, 1, 1, 1]), "a")
    var other = model([1.5, 2, 1, 1.5, 1.25])
    other.append(Tensor("x", "F32", [2], Array(repeating: 0, count: 8)))
    let changed = try #require(Diff.compare(a, write(other, "b"))["changed"]?.array)
    #expect(changed.compactMap { $0["name"]?.string } == ["t1", "t0", "t3", "t4"])
    #expect(changed.compactMap { $0["relative"]?.double } == [1, 0.5, 0.5, 0.25])
    let lines = try Tool.run("diff", a, directory.path("b.safetensors")).output.split(separator: "\n")
    #expect(lines.map { $0.prefix(2) } == ["te", "t1", "t0", "t3", "t4", "on", "di"])
    #expect(lines.last == "different: 4 changed, 0 only in A, 1 only in B, 1 equal")
  }

  @Test func tensorGlob() throws {
    let a = try TestModel(layers: 2, seed: 1).write(to: directory, "a")
    let b = try TestModel(layers: 2, seed: 2).write(to: directory, "b")
    let json = try Diff.compare(a, b, "--tensor", "*.1.*proj*")
    #expect((json["changed"]?.array ?? []).count == 2)
    let none = try Tool.run("diff", a, b, "--tensor", "nothing*", "--json")
    Refusal(status: 66, message: "no tensor of either checkpoint matches 'nothing*'").check(none, "diff")
    let same = try TestModel(layers: 1, seed: 1).write(to: directory, "c")
    #expect(try Diff.compare(a, same, "--tensor", "*.0.*")["equal"]?.bool == true)
    #expect(try Diff.compare(a, same)["equal"]?.bool == false)
  }

  // MARK: - Whatever the machine

  @Test func jobs() throws {
    var model = TestModel(layers: 3, width: 512, type: "F32")
    model.tensors.append(TestModel.tensor("wide.weight", "F64", [700, 300], seed: 77))
    model.tensors.append(TestModel.tensor("tall.weight", "BF16", [1501, 401], seed: 78))
    let a = try model.write(to: directory, "a")
    var other = TestModel(layers: 3, width: 512, type: "BF16", seed: 2)
    other.tensors.append(TestModel.tensor("wide.weight", "F32", [700, 300], seed: 79))
    other.tensors.append(TestModel.tensor("tall.weight", "BF16", [1501, 401], seed: 80))
    let b = try other.write(to: directory, "b")
    try #require(try Tool.run("quantize", a, "-o", directory.path("q")).status == 0)
    for (left, right) in [(a, b), (a, directory.path("q")), (a, a)] {
      let runs = try ["1", "2", "5"].map { try Tool.run("diff", left, right, "--json", "--jobs", $0) }
      for run in runs { #expect(run.output == runs[0].output && run.status == (left == right ? 0 : 1)) }
    }
  }

  /// Nothing is written, and the same two are told apart both ways.
  @Test func readsOnly() throws {
    let a = try TestModel(layers: 1, seed: 1).write(to: directory, "a")
    let b = try TestModel(layers: 1, seed: 2).write(to: directory, "b")
    let before = try Snapshot(directory.path)
    #expect(try Tool.run("diff", a, b).status == 1)
    #expect(try Snapshot(directory.path) == before)
  }

  @Test func oddNames() throws {
    let names = ["\\u001b[31mred", "line\\nnibble: error: forged", "\\u202ereversed"]
    let a = try write(names.map { Tensor($0, "U8", [1], [1]) }, "a")
    let b = try write(names.prefix(1).map { Tensor($0, "U8", [1], [2]) }, "b")
    for options in [[], ["--json"]] {
      let run = try Tool.run(["diff", a, b] + options)
      #expect(run.status == 1)
      expectPrintable(run.output)
      if options.isEmpty { #expect(run.output.split(separator: "\n").count == 5, "\(run.output)") }
    }
  }
}
