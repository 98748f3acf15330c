import Bytes
import PyTorch
import Tensors
import TestSupport
import Testing

/// Parts of Meta's, put together by hand: two rows of three columns in each file, unless a test says otherwise.
@Suite struct ConsolidatedTests {
  private typealias Tensor = ZeROBuilder.Tensor
  typealias Whole = ConsolidatedCheckpoint.Whole

  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  private static func floats(_ range: ClosedRange<Int>, _ shape: [Int]) -> Tensor {
    .float32(range.map(Float.init), shape)
  }

  /// Two parts of a tensor that is divided by rows, one by columns, one that both have, and tables.
  private static let sound: [[(String, Tensor)]] = [
    [
      ("rows", floats(1...6, [2, 3])), ("columns", floats(11...16, [2, 3])), ("norm", floats(1...3, [3])),
      ("heads", floats(21...24, [2, 2])), ("rope.freqs", floats(1...2, [2])),
    ],
    [
      ("rows", floats(7...12, [2, 3])), ("columns", floats(31...36, [2, 3])), ("norm", floats(4...6, [3])),
      ("heads", floats(21...24, [2, 2])),
    ],
  ]

  private func write(_ parts: [[(String, Tensor)]], names: [String]? = nil) throws {
    for (number, part) in parts.enumerated() {
      var file = ZeROBuilder.File()
      let entries = part.map { ($0.0, file.tensor($0.1)) }
      try directory.write(names?[number] ?? "consolidated.0\(number).pth", file.bytes(entries))
    }
  }

  private func open(heads: Int = 1) throws -> ConsolidatedCheckpoint {
    try ConsolidatedCheckpoint(InputDirectory(path: directory.path)) { (contents) throws(Failure) in
      let shapes: [String: ([Int], ConsolidatedCheckpoint.Joining)] = [
        "rows": ([4, 3], .rows), "columns": ([2, 6], .columns), "norm": ([3], .copies),
        "heads": ([2 * heads, 2], .heads(heads)),
      ]
      return contents.tensors.enumerated().compactMap { position, tensor in
        shapes[tensor.name.string].map { Whole(part: position, shape: $0.0, joining: $0.1) }
      }
    }
  }

  private func values(_ checkpoint: ConsolidatedCheckpoint, _ name: TensorName) throws -> [Float] {
    let index = try #require(checkpoint.index(of: name))
    let info = checkpoint.tensors[index]
    var values: [Float] = []
    // Element by element: every piece finds its part.
    for at in 0..<info.elementCount {
      let scratch = try ScratchBuffer(checkpoint, index, at: 4 * at, count: 4)
      values.append(scratch.floats[0])
    }
    let whole = try ScratchBuffer(checkpoint, index, at: 0, count: info.byteCount)
    #expect((0..<info.elementCount).allSatisfy { whole.floats[$0] == values[$0] })
    return values
  }

  @Test func partsOfEachKind() throws {
    try write(Self.sound)
    let checkpoint = try open()
    #expect(checkpoint.tensors.map(\.name) == ["rows", "columns", "norm", "heads"])
    #expect(checkpoint.fileNames == ["consolidated.00.pth", "consolidated.01.pth"])
    #expect(checkpoint.identities.count == 2 && checkpoint.warnings.isEmpty && checkpoint.path == directory.path)
    #expect(try values(checkpoint, "rows") == (1...12).map(Float.init))
    #expect(try values(checkpoint, "columns") == [11, 12, 13, 31, 32, 33, 14, 15, 16, 34, 35, 36])
    #expect(try values(checkpoint, "norm") == [1, 2, 3])
    #expect(try values(checkpoint, "heads") == [21, 22, 23, 24])
    #expect(try checkpoint.place(of: 0) == nil && checkpoint.place(of: 2)?.file.name == "consolidated.00.pth")
    // Read from both, to be compared.
    #expect(try checkpoint.place(of: 3) == nil)
    #expect(checkpoint.location(of: 1).file == "consolidated.00.pth")
    try directory.write("consolidated.01.pth", [1])
    #expect(try #require(throws: Failure.self) { try checkpoint.checkUnchanged() }.code == .io)
  }

  @Test func headsOfTheirOwn() throws {
    var parts = Self.sound
    parts[1][3].1 = Self.floats(25...28, [2, 2])
    try write(parts)
    #expect(try values(open(heads: 2), "heads") == (21...28).map(Float.init))
    // Were it one head, both would have the same.
    let checkpoint = try open(heads: 1)
    let failure = try #require(throws: Failure.self) { try values(checkpoint, "heads") }
    #expect(failure.code == .malformed && failure.tensor == "heads")
    #expect(failure.message == "has heads that are in more than one part, and not with the same values")
  }

  @Test func neighboursHaveTheSameHead() throws {
    let heads = [21...24, 21...24, 31...34, 31...34].map { Self.floats($0, [2, 2]) }
    try write(heads.map { [("heads", $0)] })
    #expect(try values(open(heads: 2), "heads") == [21, 22, 23, 24, 31, 32, 33, 34])
  }

  @Test func onePart() throws {
    try write([Self.sound[0].filter { ["norm", "heads"].contains($0.0) }])
    let checkpoint = try open()
    #expect(try values(checkpoint, "heads") == [21, 22, 23, 24])
    #expect(try checkpoint.place(of: 1)?.file.name == "consolidated.00.pth")
  }

  @Test func namesOfParts() {
    #expect(ConsolidatedCheckpoint.isThere(among: ["a", "consolidated.00.pth"]))
    #expect(ConsolidatedCheckpoint.isThere(among: ["consolidated.12.pth"]))
    for name in [
      "consolidated.pth", "consolidated.0.pth", "consolidated.0a.pth", "consolidated.00.pt", "consolidated.٠٠.pth",
    ] {
      #expect(!ConsolidatedCheckpoint.isThere(among: [name]), "\(name)")
    }
  }

  struct Row: CustomTestStringConvertible, Sendable {
    let testDescription: String
    let file: String
    let tensor: String?
    let message: String
    var heads = 1
    let change: @Sendable (inout [[(String, ZeROBuilder.Tensor)]]) -> Void
  }

  static let rows = [
    Row(
      testDescription: "a part of another shape", file: "consolidated.01.pth", tensor: "rows",
      message: "is F32 of shape [3, 2], in 'consolidated.00.pth' it is F32 of shape [2, 3]"
    ) { $0[1][0].1 = floats(1...6, [3, 2]) },
    Row(
      testDescription: "a part of another type", file: "consolidated.01.pth", tensor: "norm",
      message: "is BF16 of shape [3], in 'consolidated.00.pth' it is F32 of shape [3]"
    ) { $0[1][2].1 = .bfloat16([1, 2, 3]) },
    Row(
      testDescription: "a part that is missing", file: "consolidated.01.pth", tensor: "columns",
      message: "is not in this file, but in 'consolidated.00.pth'"
    ) { $0[1].remove(at: 1) },
    Row(
      testDescription: "a matrix that the first has not", file: "consolidated.01.pth", tensor: "more",
      message: "is in this file, but not in 'consolidated.00.pth'"
    ) { $0[1].append(("more", floats(1...4, [2, 2]))) },
    Row(
      testDescription: "a whole that is more than its parts", file: "", tensor: "rows",
      message: "has a part of shape [3, 3] at [3, 0], it has shape [4, 3] itself"
    ) {
      for part in 0...1 { $0[part][0].1 = floats(1...9, [3, 3]) }
    },
    Row(
      testDescription: "parts that are no multiple of the heads", file: "", tensor: "heads",
      message: "has 2 heads in 3 parts, which is no multiple of it", heads: 2
    ) {
      for part in 0...1 { $0[part].removeAll { $0.0 != "heads" } }
      $0.append($0[1])
    },
  ]

  @Test(arguments: rows) func rejected(row: Row) throws {
    var parts = Self.sound
    row.change(&parts)
    try write(parts)
    let failure = try #require(throws: Failure.self) { try open(heads: row.heads) }
    #expect(failure.code == .malformed && failure.message == row.message)
    #expect(failure.tensor == row.tensor && (failure.file ?? "") == row.file)
  }

  @Test(arguments: [
    (["consolidated.00.pth", "consolidated.02.pth"], "consolidated.01.pth", "consolidated.02.pth"),
    (["consolidated.01.pth", "consolidated.02.pth"], "consolidated.00.pth", "consolidated.02.pth"),
    (["consolidated.00.pth", "consolidated.99999999.pth"], "consolidated.01.pth", "consolidated.99999999.pth"),
    (["consolidated.000.pth", "consolidated.001.pth"], "consolidated.00.pth", "consolidated.01.pth"),
  ]) func partsThatAreMissing(names: [String], missing: String, last: String) throws {
    try write(Self.sound, names: names)
    let failure = try #require(throws: Failure.self) { try open() }
    #expect(failure.code == .missing && failure.file == missing)
    #expect(failure.message == "the file is missing; there are parts up to '\(last)'")
  }
}
