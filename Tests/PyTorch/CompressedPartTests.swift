import Bytes
import CZstd
import PyTorch
import Tensors
import TestSupport
import Testing

/// Parts of `torch.distributed.checkpoint` that its extension for Zstandard has compressed.
@Suite struct CompressedPartTests {
  private static let file = "__0_0.distcp"
  private static let descriptor = "stream.zstd/1"

  private let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  /// A frame by the library itself.
  private static func frame(_ bytes: [UInt8], hasChecksum: Bool = false, hasSize: Bool = true) -> [UInt8] {
    let context = ZSTD_createCCtx()
    defer { ZSTD_freeCCtx(context) }
    ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, hasChecksum ? 1 : 0)
    ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, hasSize ? 1 : 0)
    var room = [UInt8](repeating: 0, count: ZSTD_compressBound(bytes.count))
    let count = ZSTD_compress2(context, &room, room.count, bytes, bytes.count)
    return Array(room.prefix(count))
  }

  private static let data = (0..<6).flatMap { Pickle.little(Float($0).bitPattern, 4) }

  /// An archive of one tensor.
  private static func archive(_ shape: [Int] = [2, 3], _ data: [UInt8] = data, type: String = "FloatStorage") -> [UInt8]
  {
    TorchBuilder.zip(
      Pickle.whole(Pickle.tensor(Pickle.storage(shape.reduce(1, *), type), shape)), [("0", data)])
  }

  /// Between other bytes, as parts lie.
  private func open(
    _ stored: [UInt8], shape: [Int] = [2, 3], transforms: [String] = [descriptor], length: Int? = nil
  ) throws -> DistributedCheckpoint {
    try directory.write(Self.file, [1, 2, 3] + stored + [4, 5])
    var chunk = DistributedBuilder.Chunk(
      shape.map { _ in 0 }, shape, Self.file, at: 3, length: length ?? stored.count)
    chunk.transforms = transforms
    try directory.write(".metadata", DistributedBuilder.metadata([.init("w", "float32", shape, [chunk])]))
    return try DistributedCheckpoint(InputDirectory(path: directory.path)) { (_) throws(Failure) in [] }
  }

  @Test func frames() throws {
    let archive = Self.archive()
    let half = archive.count / 2
    let two = Self.frame(Array(archive[..<half])) + Self.frame(Array(archive[half...]))
    // An empty frame, and one that is to be skipped.
    let others = Self.frame([]) + [0x50, 0x2A, 0x4D, 0x18, 2, 0, 0, 0, 9, 9]
    for stored in [
      Self.frame(archive), Self.frame(archive, hasChecksum: true), Self.frame(archive, hasSize: false), two,
      Self.frame(archive) + others,
    ] {
      let checkpoint = try open(stored)
      #expect(try checkpoint.bytes(0) == Self.data)
      #expect(try checkpoint.bytes(0, 8..<16) == Array(Self.data[8..<16]))
      #expect(try checkpoint.place(of: 0) == nil && checkpoint.location(of: 0) == (Self.file, 3))
      try checkpoint.checkUnchanged()
    }
    #expect(try open(archive, transforms: []).bytes(0) == Self.data)
  }

  /// More parts than are kept expanded, of more than is read at once, in turn.
  @Test func manyParts() throws {
    let rows = 40_000
    var bytes: [UInt8] = []
    var chunks: [DistributedBuilder.Chunk] = []
    for part in 0..<6 {
      let values = (0..<rows).flatMap {
        Pickle.little(UInt32(truncatingIfNeeded: ($0 + part * rows) &* 2_654_435_761), 4)
      }
      let frame = Self.frame(Self.archive([rows], values, type: "IntStorage"), hasSize: part % 2 == 0)
      chunks.append(.init([part * rows], [rows], Self.file, at: bytes.count, length: frame.count))
      chunks[part].transforms = [Self.descriptor]
      bytes += frame
    }
    try directory.write(Self.file, bytes)
    try directory.write(".metadata", DistributedBuilder.metadata([.init("w", "int32", [6 * rows], chunks)]))
    let checkpoint = try DistributedCheckpoint(InputDirectory(path: directory.path)) { (_) throws(Failure) in [] }
    for _ in 0..<2 {
      let found = try checkpoint.bytes(0)
      #expect(found == (0..<6 * rows).flatMap { Pickle.little(UInt32(truncatingIfNeeded: $0 &* 2_654_435_761), 4) })
    }
  }

  struct Damage: Sendable, CustomTestStringConvertible {
    let testDescription: String
    let stored: [UInt8]
    let message: String
  }

  static let damages: [Damage] = {
    let whole = frame(archive(), hasChecksum: true)
    var flipped = whole
    flipped[flipped.count - 1] ^= 1
    // The size of what is in it stands behind the magic number and the descriptor, in two bytes less 256.
    var resized = frame(archive())
    resized[5] ^= 1
    return [
      Damage(testDescription: "cut off", stored: Array(whole.dropLast(9)), message: "is compressed and cut off"),
      Damage(testDescription: "nothing", stored: [], message: "is compressed and cut off"),
      Damage(
        testDescription: "a beginning alone", stored: Array(whole.prefix(3)), message: "is compressed and cut off"),
      Damage(
        testDescription: "bytes behind it", stored: whole + Array("behind".utf8), message: "is no data of Zstandard"),
      Damage(testDescription: "a byte behind it", stored: whole + [0], message: "is no data of Zstandard"),
      Damage(testDescription: "a wrong checksum", stored: flipped, message: "is no data of Zstandard"),
      Damage(testDescription: "a wrong size", stored: resized, message: "is no data of Zstandard"),
      Damage(testDescription: "not compressed", stored: archive(), message: "is no data of Zstandard"),
      Damage(
        testDescription: "a bomb", stored: frame([UInt8](repeating: 0, count: 64 << 20)),
        message: "has more than the 1048600 bytes that its tensor needs"),
      Damage(
        testDescription: "a bomb that does not say so",
        stored: frame([UInt8](repeating: 0, count: 64 << 20), hasSize: false),
        message: "has more than the 1048600 bytes that its tensor needs"),
      Damage(
        testDescription: "a bomb of frames",
        stored: (0..<100).flatMap { _ in frame([UInt8](repeating: 0, count: 1 << 20)) },
        message: "has more than the 1048600 bytes that its tensor needs"),
      Damage(
        testDescription: "no archive", stored: frame([1, 2, 3]),
        message: "is neither a ZIP archive nor a series of pickles"),
      Damage(
        testDescription: "another shape", stored: frame(archive([3, 2])),
        message: "has a part of F32 [3, 2] where '.metadata' says F32 [2, 3]"),
      Damage(
        testDescription: "another type", stored: frame(archive(type: "IntStorage")),
        message: "has a part of I32 [2, 3] where '.metadata' says F32 [2, 3]"),
    ]
  }()

  @Test(arguments: damages) func damaged(_ damage: Damage) throws {
    #expect(damage.testDescription.contains("size") ? Self.frame(Self.archive())[4] == 0x60 : true)
    let checkpoint = try open(damage.stored)
    let failure = try #require(throws: Failure.self) { _ = try checkpoint.bytes(0) }
    #expect(failure.code == .malformed && failure.message.contains(damage.message), "\(failure)")
    #expect(failure.file == Self.file && failure.tensor == "w", "\(failure)")
  }

  @Test func places() throws {
    let stored = Self.frame(Self.archive())
    for transforms in [["stream.lz4/1"], ["stream.zstd/2"], [Self.descriptor, Self.descriptor]] {
      let failure = try #require(throws: Failure.self) { _ = try open(stored, transforms: transforms) }
      #expect(
        failure.code == .unsupported && failure.message.contains("was transformed when it was saved"), "\(failure)")
    }
    let failure = try #require(throws: Failure.self) { _ = try open(stored, length: stored.count + 3) }
    #expect(failure.code == .malformed && failure.message.contains("are outside it"), "\(failure)")
  }
}
