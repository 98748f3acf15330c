import Bytes
import CZstd
import Foundation
import PyTorch
import Tensors
import TestSupport
import Testing

/// Hundreds of directories of `torch.distributed.checkpoint` and of ranks' files of which one file is damaged, always
/// the same: each is read or refused with a typed failure. Each batch runs in a process of its own, which a trap would
/// end.
@Suite(.serialized) struct TrainingMutationTests {
  @Test func damagedRanks() async {
    await #expect(processExitsWith: .success) {
      TrainingMutationTests.run(TrainingMutationTests.ranks, count: 600) { try RankedCheckpoint($0) }
    }
  }

  @Test func damagedMetadata() async {
    await #expect(processExitsWith: .success) {
      TrainingMutationTests.run(TrainingMutationTests.distributed, count: 600) { directory in
        try DistributedCheckpoint(directory) { (_) throws(Failure) in [] }
      }
    }
  }

  private typealias Files = [(name: String, bytes: [UInt8])]

  /// Boxes of four ranks, and replicas.
  private static var ranks: Files {
    (0..<4).map { rank in
      let place = [rank / 2, rank % 2]
      var replica = RankedBuilder.Part([2], [.replicate, .shard(0)], at: place, [Float(rank)], [1])
      replica.name = "r"
      let box = RankedBuilder.Part([2, 4], [.shard(0), .shard(1)], at: place, [1, Float(rank)], [1, 2])
      return ("model_world_size_4_rank_\(rank).pt", withoutChecksums(RankedBuilder.file([box, replica])))
    }
  }

  /// Two rows, the second of them compressed.
  private static var distributed: Files {
    let archive = withoutChecksums(
      TorchBuilder.zip(
        Pickle.whole(Pickle.tensor(Pickle.storage(3), [1, 3])), [("0", Array(TorchBuilder.six[0].data.prefix(12)))]))
    var room = [UInt8](repeating: 0, count: ZSTD_compressBound(archive.count))
    let count = ZSTD_compress(&room, room.count, archive, archive.count, 3)
    let compressed = Array(room.prefix(count))
    var chunks: [DistributedBuilder.Chunk] = [
      .init([0, 0], [1, 3], "__0_0.distcp", length: archive.count),
      .init([1, 0], [1, 3], "__0_0.distcp", at: archive.count, length: compressed.count),
    ]
    chunks[1].transforms = ["stream.zstd/1"]
    return [
      (".metadata", DistributedBuilder.metadata([.init("w", "float32", [2, 3], chunks)])),
      ("__0_0.distcp", archive + compressed),
    ]
  }

  /// With them, nearly every change of a pickle would be refused for its checksum alone.
  private static func withoutChecksums(_ bytes: [UInt8]) -> [UInt8] {
    var bytes = bytes
    var at = bytes.startIndex
    while let record = bytes[at...].firstRange(of: [0x50, 0x4B, 0x01, 0x02] as [UInt8]) {
      bytes.replaceSubrange(record.lowerBound + 16..<record.lowerBound + 20, with: [0, 0, 0, 0])
      at = record.upperBound
    }
    return bytes
  }

  private static func run(
    _ files: Files, count: Int, _ open: (InputDirectory) throws -> any TrainingCheckpoint
  ) {
    var generator = SplitMix64(seed: 11)
    var accepted = 0
    do {
      let directory = try TemporaryDirectory()
      for file in files { try directory.write(file.name, file.bytes) }
      for number in 0..<count {
        let (name, bytes) = files[number % files.count]
        var damaged = bytes
        let at = Int.random(in: 0..<bytes.count, using: &generator)
        damaged[at] =
          Bool.random(using: &generator)
          ? UInt8.random(in: 0...255, using: &generator) : damaged[at] ^ 1 << UInt8.random(in: 0..<8, using: &generator)
        try directory.overwrite(name, at: 0, with: damaged)
        if try check(directory, "case \(number)", open) { accepted += 1 }
        try directory.overwrite(name, at: 0, with: bytes)
      }
    } catch { fail("\(error)") }
    // A harness whose every file is refused early would test nothing.
    guard accepted > count / 20 else { fail("only \(accepted) of \(count) checkpoints were accepted") }
  }

  /// True when the checkpoint is accepted; ends the process when an invariant does not hold.
  private static func check(
    _ directory: TemporaryDirectory, _ name: String, _ open: (InputDirectory) throws -> any TrainingCheckpoint
  ) throws -> Bool {
    do {
      let checkpoint = try open(InputDirectory(path: directory.path))
      for (index, tensor) in checkpoint.tensors.enumerated() {
        guard checkpoint.index(of: tensor.name) == index, tensor.byteCount < 1 << 16 else {
          fail("\(name): tensor \(index) is misplaced")
        }
        _ = try checkpoint.bytes(index)
      }
      return true
    } catch let failure as Failure {
      let text = failure.description
      guard [.malformed, .unsupported, .missing].contains(failure.code), text.utf8.count <= 4096,
        !text.utf8.contains(where: { $0 < 0x20 || $0 == 0x7F })
      else { fail("\(name): \(failure.code) \(text)") }
      return false
    }
  }

  private static func fail(_ message: String) -> Never {
    FileHandle.standardError.write(Data((message + "\n").utf8))
    exit(1)
  }
}
