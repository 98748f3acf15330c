import Bytes
import PyTorch
import Tensors
import TestSupport
import Testing

/// Files of DTensors that ranks have saved one by one.
@Suite struct RankedTests {
  typealias Part = RankedBuilder.Part

  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  private static func name(_ rank: Int, of world: Int) -> String { "model_world_size_\(world)_rank_\(rank).pt" }

  private static func floats(_ values: Int...) -> [Float] { values.map { Float($0) } }

  private func write(_ ranks: [[Part]]) throws {
    for (rank, parts) in ranks.enumerated() {
      try directory.write(Self.name(rank, of: ranks.count), RankedBuilder.file(parts))
    }
  }

  private func open() throws -> RankedCheckpoint { try RankedCheckpoint(InputDirectory(path: directory.path)) }

  /// A tensor whose elements are their positions, in parts of each rank.
  struct Division: Sendable, CustomTestStringConvertible {
    let testDescription: String
    let ranks: [Part]
  }

  /// [5, 3] is 0 to 14.
  static let divisions: [Division] = [
    Division(
      testDescription: "rows",
      ranks: [
        Part([5, 3], [.shard(0)], at: [0], (0...8).map { Float($0) }, [3, 3]),
        Part([5, 3], [.shard(0)], at: [1], (9...14).map { Float($0) }, [2, 3]),
      ]),
    Division(
      testDescription: "a mesh that says nothing",
      ranks: [
        Part([5, 3], [.shard(0)], at: nil, (0...8).map { Float($0) }, [3, 3]),
        Part([5, 3], [.shard(0)], at: nil, (9...14).map { Float($0) }, [2, 3]),
      ]),
    Division(
      testDescription: "ranks in another order",
      ranks: [
        Part([5, 3], [.shard(0)], at: [1], (9...14).map { Float($0) }, [2, 3]),
        Part([5, 3], [.shard(0)], at: [0], (0...8).map { Float($0) }, [3, 3]),
      ]),
    Division(
      testDescription: "columns",
      ranks: [
        Part([5, 3], [.shard(1)], at: [0], floats(0, 1, 3, 4, 6, 7, 9, 10, 12, 13), [5, 2]),
        Part([5, 3], [.shard(1)], at: [1], floats(2, 5, 8, 11, 14), [5, 1]),
      ]),
    // Of four ranks three have two rows at most, and the last none.
    Division(
      testDescription: "fewer rows than ranks want",
      ranks: [
        Part([5, 3], [.shard(0)], at: [0], (0...5).map { Float($0) }, [2, 3]),
        Part([5, 3], [.shard(0)], at: [1], (6...11).map { Float($0) }, [2, 3]),
        Part([5, 3], [.shard(0)], at: [2], (12...14).map { Float($0) }, [1, 3]),
        Part([5, 3], [.shard(0)], at: [3], [], [0, 3]),
      ]),
    Division(
      testDescription: "the same everywhere",
      ranks: (0..<2).map { Part([5, 3], [.replicate], at: [$0], (0...14).map { Float($0) }, [5, 3]) }),
    Division(
      testDescription: "replicas of rows",
      ranks: (0..<4).map { rank in
        rank % 2 == 0
          ? Part([5, 3], [.replicate, .shard(0)], at: [rank / 2, 0], (0...8).map { Float($0) }, [3, 3])
          : Part([5, 3], [.replicate, .shard(0)], at: [rank / 2, 1], (9...14).map { Float($0) }, [2, 3])
      }),
    Division(
      testDescription: "rows of replicas",
      ranks: (0..<4).map { rank in
        rank < 2
          ? Part([5, 3], [.shard(0), .replicate], at: [0, rank], (0...8).map { Float($0) }, [3, 3])
          : Part([5, 3], [.shard(0), .replicate], at: [1, rank - 2], (9...14).map { Float($0) }, [2, 3])
      }),
    // Each of two submeshes has the whole.
    Division(
      testDescription: "submeshes",
      ranks: (0..<4).map { rank in
        rank % 2 == 0
          ? Part([5, 3], [.shard(0)], at: [0], (0...8).map { Float($0) }, [3, 3])
          : Part([5, 3], [.shard(0)], at: [1], (9...14).map { Float($0) }, [2, 3])
      }),
    Division(
      testDescription: "boxes",
      ranks: [
        Part([5, 3], [.shard(0), .shard(1)], at: [0, 0], floats(0, 1, 3, 4, 6, 7), [3, 2]),
        Part([5, 3], [.shard(0), .shard(1)], at: [0, 1], floats(2, 5, 8), [3, 1]),
        Part([5, 3], [.shard(0), .shard(1)], at: [1, 0], floats(9, 10, 12, 13), [2, 2]),
        Part([5, 3], [.shard(0), .shard(1)], at: [1, 1], floats(11, 14), [2, 1]),
      ]),
    // Three rows and two, then two and one, one and one.
    Division(
      testDescription: "rows of rows",
      ranks: [
        Part([5, 3], [.shard(0), .shard(0)], at: [0, 0], (0...5).map { Float($0) }, [2, 3]),
        Part([5, 3], [.shard(0), .shard(0)], at: [0, 1], (6...8).map { Float($0) }, [1, 3]),
        Part([5, 3], [.shard(0), .shard(0)], at: [1, 0], (9...11).map { Float($0) }, [1, 3]),
        Part([5, 3], [.shard(0), .shard(0)], at: [1, 1], (12...14).map { Float($0) }, [1, 3]),
      ]),
  ]

  @Test(arguments: divisions) func divided(_ division: Division) throws {
    try write(division.ranks.map { [$0] })
    let checkpoint = try open()
    #expect(checkpoint.tensors.map(\.name) == ["w"] && checkpoint.tensors[0].shape == [5, 3])
    #expect(try checkpoint.bytes(0) == (0...14).flatMap { Pickle.little(Float($0).bitPattern, 4) })
    #expect(checkpoint.worldSize == division.ranks.count && checkpoint.warnings.isEmpty && checkpoint.tied.isEmpty)
    #expect(checkpoint.identities.count == division.ranks.count)
    try checkpoint.checkUnchanged()
  }

  @Test func otherThings() throws {
    let bias = ZeROBuilder.Tensor.bfloat16([1, 2])
    for rank in 0..<2 {
      var part = Self.divisions[0].ranks[rank]
      part.name = "model.w"
      try directory.write(
        Self.name(rank, of: 2),
        RankedBuilder.file([part], plain: [("b", bias)], more: [("step", Pickle.integer(7))]))
      try directory.write("optim_world_size_2_rank_\(rank).pt", [1])
      try directory.write("extra_state_world_size_2_rank_\(rank).pt", [2])
    }
    // Numbers in another form are another program's.
    try directory.write("model_world_size_02_rank_0.pt", [])
    try directory.write("fsdp_config.json", [])
    let checkpoint = try open()
    #expect(checkpoint.tensors.map(\.name) == ["model.w", "b"])
    #expect(try checkpoint.bytes(1) == bias.bytes)
    #expect(
      checkpoint.warnings.map(\.description).sorted() == [
        "\(directory.path): left out 4 files of optimizers and of the run's state",
        "\(Self.name(0, of: 2)), \(Self.name(1, of: 2)): ignored 'step', which are no tensors of the model",
      ])
    #expect(try checkpoint.place(of: 0) == nil)
    #expect(checkpoint.location(of: 0).file == Self.name(0, of: 2))
    try directory.write(Self.name(1, of: 2), [1])
    #expect(try #require(throws: Failure.self) { try checkpoint.checkUnchanged() }.code == .io)
  }

  private func refused(_ code: Failure.Code, _ message: String, rank: Int, of world: Int = 2, isOfTensor: Bool = true)
    throws
  {
    let failure = try #require(throws: Failure.self) { _ = try open() }
    #expect(failure.code == code && failure.message.contains(message), "\(failure)")
    #expect(failure.file == Self.name(rank, of: world) && (failure.tensor != nil) == isOfTensor, "\(failure)")
  }

  @Test func ranksThatAreMissing() throws {
    try write(Self.divisions[0].ranks.map { [$0] })
    _ = try open()
    try directory.remove(Self.name(1, of: 2))
    try refused(.missing, "the file is missing; the run had 2 ranks", rank: 1, isOfTensor: false)
    try directory.write(Self.name(5, of: 2), [])
    try refused(.malformed, "is of rank 5, the run had 2 ranks", rank: 5, isOfTensor: false)
    try directory.remove(Self.name(5, of: 2))
    try directory.write(Self.name(0, of: 4), [])
    try refused(
      .malformed, "is of a run of 4 ranks, '\(Self.name(0, of: 2))' beside it of one of 2", rank: 0, of: 4,
      isOfTensor: false)
    for rank in 0..<2 { try? directory.remove(Self.name(rank, of: 2)) }
    try directory.remove(Self.name(0, of: 4))
    try directory.write(Self.name(0, of: Int.max), [])
    try refused(.missing, "the file is missing", rank: 1, of: Int.max, isOfTensor: false)
  }

  /// What the second rank has instead, beside what the first has.
  @Test func ranksThatDisagree() throws {
    let (first, second) = (Self.divisions[0].ranks[0], Self.divisions[0].ranks[1])
    func refuse(_ code: Failure.Code, _ message: String, rank: Int = 1, _ edit: (inout Part) -> Void) throws {
      var parts = [first, second]
      edit(&parts[rank])
      try write(parts.map { [$0] })
      try refused(code, message, rank: rank)
    }
    try refuse(.malformed, "is not in '\(Self.name(0, of: 2))', as if of another run") { $0.name = "v" }
    try refuse(.malformed, "is of another type, shape or division") { $0.shape = [6, 3] }
    try refuse(.malformed, "is of another type, shape or division") { $0.placements = [.shard(1)] }
    try refuse(.malformed, "is of another type, shape or division") {
      $0.local = .bfloat16([9, 10, 11, 12, 13, 14], [2, 3])
    }
    try refuse(.malformed, "has a part of shape [1, 3], by its shape [5, 3] and its division it is [2, 3]") {
      $0.local = .float32([9, 10, 11], [1, 3])
    }
    try refuse(.malformed, "has a part of shape [0, 3], by its shape [5, 3]") { $0.local = .float32([], [0, 3]) }
    // Both say that they are the second.
    try refuse(.malformed, "has a part of shape [3, 3], by its shape [5, 3] and its division it is [2, 3]", rank: 0) {
      $0.coordinates = [1]
    }
    try refuse(.malformed, "is divided along a dimension that it does not have", rank: 0) {
      $0.placements = [.shard(2)]
    }
    for kind in ["_StridedShard", "Partial", "_NormPartial"] {
      try refuse(.unsupported, "is divided as '\(kind)', read are Shard and Replicate", rank: 0) {
        $0.placements = [.other(kind)]
      }
    }
    try write([[first], []])
    try refused(.malformed, "lacks a tensor that '\(Self.name(0, of: 2))' has", rank: 1)
    // Where in two dimensions of ranks this one is, nothing says.
    for coordinates in [nil, [0], [0, 2]] as [[Int]?] {
      try write([0, 1].map { _ in [Part([3], [.replicate, .shard(0)], at: coordinates, [1, 2, 3], [3])] })
      try refused(.unsupported, "is divided among 2 dimensions of ranks", rank: 0)
    }
  }

  @Test func partThatNobodyHas() throws {
    try write([0, 2, 2].map { [Part([3], [.shard(0)], at: [$0], [Float($0)], [1])] })
    let failure = try #require(throws: Failure.self) { _ = try open() }
    #expect(failure.message.contains("has 2 elements in its 2 parts, its shape [3] has 3"), "\(failure)")
  }

  @Test func oneTensorOfTwoNames() throws {
    for rank in 0..<2 {
      var file = ZeROBuilder.File()
      let tensor = file.tensor(.float32([Float(rank)]))
      try directory.write(Self.name(rank, of: 2), file.bytes([("a", tensor), ("b", tensor)]))
    }
    #expect(try open().tied == [[0, 1]])
  }
}
