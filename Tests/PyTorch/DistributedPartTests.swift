import Bytes
import PyTorch
import Tensors
import TestSupport
import Testing

/// Parts in files of safetensors, with and without `.metadata`: what the files say, and what is made of it.
@Suite struct DistributedPartTests {
  private struct Part {
    var name = "w"
    var type = ElementType.f32
    var shape: [Int]
    var offsets: [Int]
    var start: Int

    init(_ shape: [Int], at offsets: [Int], start: Int = 16) {
      self.shape = shape
      self.offsets = offsets
      self.start = start
    }

    func made() throws -> DistributedPart {
      DistributedPart(try TensorInfo(name: TensorName(name), type: type, shape: shape), offsets: offsets, start: start)
    }
  }

  private let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  /// Rows of a tensor [5, 2], whose elements are their positions: three and two of them.
  private static let parts = [Part([3, 2], at: [0, 0]), Part([2, 2], at: [3, 0])]

  private func open(
    _ parts: [Part], names: [String], tensors: [DistributedBuilder.Tensor]? = nil
  ) throws -> DistributedCheckpoint {
    var made: [String: [DistributedPart]] = [:]
    for (name, part) in zip(names, parts) {
      // A header of eight bytes behind its length.
      let first = part.offsets.first.map { $0 < 100 ? 2 * $0 : 0 } ?? 0
      let data = (first..<first + part.shape.reduce(1, *)).flatMap { Pickle.little(Float($0).bitPattern, 4) }
      try directory.write(name, SafetensorsBuilder.file("{      }", data))
      made[name] = [try part.made()]
    }
    if let tensors { try directory.write(".metadata", DistributedBuilder.metadata(tensors)) }
    let found = made
    return try DistributedCheckpoint(InputDirectory(path: directory.path)) { (file) throws(Failure) in
      found[file.name] ?? []
    }
  }

  private static let shards = [
    "shard-00001-model-00001-of-00001.safetensors", "shard-00002-model-00001-of-00001.safetensors",
  ]
  private static let files = ["__0_0.distcp", "__1_0.distcp"]
  private static let tensor = DistributedBuilder.Tensor(
    "w", "float32", [5, 2],
    [.init([0, 0], [3, 2], files[0], length: 24), .init([3, 0], [2, 2], files[1], length: 16)])

  @Test func whole() throws {
    let alone = try open(Self.parts, names: Self.shards)
    let bytes = (0..<10).flatMap { Pickle.little(Float($0).bitPattern, 4) }
    #expect(alone.tensors.map(\.shape) == [[5, 2]] && alone.fileNames == Self.shards)
    #expect(try alone.bytes(0) == bytes)
    #expect(alone.warnings.count == 1 && alone.warnings[0].contains("put together from 2 files; nothing says how many"))
    for name in Self.shards { try directory.remove(name) }
    let listed = try open(Self.parts, names: Self.files, tensors: [Self.tensor])
    #expect(listed.fileNames == Self.files + [".metadata"] && listed.warnings.isEmpty)
    #expect(try listed.bytes(0) == bytes)
  }

  @Test func withoutMetadata() throws {
    func refuse(_ code: Failure.Code, _ message: String, _ edit: (inout [Part]) -> Void) throws {
      var parts = Self.parts
      edit(&parts)
      let failure = try #require(throws: Failure.self) { _ = try open(parts, names: Self.shards) }
      #expect(failure.code == code && failure.message.contains(message), "\(failure)")
      #expect(failure.tensor == "w", "\(failure)")
    }
    try refuse(.malformed, "has 10 elements in its 2 parts, its shape [4, 2] has 8") {
      $0[1] = Part([2, 2], at: [2, 0])
    }
    try refuse(.malformed, "has 10 elements in its 2 parts, its shape [6, 2] has 12") { $0[1].offsets = [4, 0] }
    try refuse(.malformed, "is F32 of 1 dimension here, in '\(Self.shards[0])' F32 of 2") { $0[1] = Part([4], at: [3]) }
    try refuse(.malformed, "is I32 of 2 dimensions here") { $0[1].type = .i32 }
    try refuse(.malformed, "overflows") { $0[1].offsets = [Int.max, 0] }
  }

  @Test func besideMetadata() throws {
    func refuse(
      _ code: Failure.Code, _ message: String, file: String? = "__1_0.distcp",
      _ edit: (inout [Part], inout DistributedBuilder.Tensor) -> Void
    ) throws {
      var (parts, tensor) = (Self.parts, Self.tensor)
      edit(&parts, &tensor)
      let failure = try #require(throws: Failure.self) {
        _ = try open(parts, names: Self.files, tensors: [tensor])
      }
      #expect(failure.code == code && failure.message.contains(message), "\(failure)")
      #expect(failure.tensor == "w" && failure.file == file, "\(failure)")
    }
    try refuse(.malformed, "has no such tensor, by '.metadata' a part of it") { parts, _ in parts[1].name = "v" }
    try refuse(.malformed, "has a part of offsets [2, 0] where '.metadata' says [3, 0]") { parts, _ in
      parts[1].offsets = [2, 0]
    }
    try refuse(.malformed, "has a part of shape [4] where '.metadata' says [2, 2]") { parts, _ in parts[1].shape = [4] }
    try refuse(.malformed, "is F32, a part of it is I32", file: nil) { parts, _ in parts[1].type = .i32 }
    try refuse(.malformed, "has 6 elements in its 1 part", file: nil) { $1.chunks.removeLast() }
    // Its length, then JSON, behind other values.
    try directory.write("__2_0.distcp", [9, 9, 9] + SafetensorsBuilder.file("{      }"))
    try refuse(.unsupported, "has values that are no tensors before its safetensors", file: "__2_0.distcp") {
      $1.chunks[1] = .init([3, 0], [2, 2], "__2_0.distcp", at: 3, length: 16)
    }
  }
}
