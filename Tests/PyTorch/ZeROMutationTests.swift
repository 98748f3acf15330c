import Bytes
import Foundation
import PyTorch
import Tensors
import TestSupport
import Testing

/// Hundreds of checkpoints of which one file is damaged, always the same: each is read or refused with a typed failure.
/// Each batch runs in a process of its own, which a trap would end.
@Suite(.serialized) struct ZeROMutationTests {
  @Test(arguments: [2, 3]) func damagedFiles(_ stage: Int) async {
    await #expect(processExitsWith: .success, "stage \(stage)") { [stage] in
      ZeROMutationTests.run(stage: stage, count: 600)
    }
  }

  private struct Example: ZeROExample { let directory: TemporaryDirectory }

  /// The files, without checksums: with them, nearly every change of a pickle would be refused for its checksum alone.
  private static func files(_ stage: Int, _ example: Example) -> [(name: String, bytes: [UInt8])] {
    let frozen: [ZeROBuilder.Tensor] =
      stage == 3 ? [.bfloat16([1, 2]), .bfloat16([3, 9])] : Array(repeating: .bfloat16([1, 2, 3]), count: 2)
    var files: [(name: String, bytes: [UInt8])] = []
    for rank in 0..<2 {
      let model = example.model {
        $0.module = Example.shapes.map { ($0.0, .empty) } + [("buffer", .float32([1]))]
        $0.buffers = ["buffer"]
        $0.frozenShapes = [("f", [3])]
        $0.fragments = [("f", frozen[rank])]
        $0.shared = [("alias", "f")]
      }
      if stage == 3 {
        files.append((example.partition(rank), model.bytes))
      } else if rank == 0 {
        files.append((example.module, model.bytes))
      }
      let count = stage == 3 ? 19 : 18 - rank
      let vector = ZeROBuilder.Tensor.float32((0..<count).map { Float($0) })
      files.append(
        (
          example.optimizer(rank),
          ZeROBuilder.optimizer(stage: stage, counts: [2], [vector], paddings: stage == 3 ? nil : [[0, 0, 0]])
        ))
    }
    return files
  }

  private static func run(stage: Int, count: Int) {
    var generator = SplitMix64(seed: UInt64(stage))
    guard let directory = try? TemporaryDirectory() else { fail("no directory") }
    let example = Example(directory: directory)
    let files = files(stage, example)
    var accepted = 0
    do {
      for file in files { try directory.write(file.name, file.bytes) }
      for number in 0..<count {
        let (name, bytes) = files[number % files.count]
        try directory.overwrite(name, at: 0, with: damaged(bytes, &generator))
        if try check(directory, "stage \(stage), case \(number)") { accepted += 1 }
        try directory.overwrite(name, at: 0, with: bytes)
      }
    } catch { fail("\(error)") }
    // A harness whose every file is refused early would test nothing.
    guard accepted > count / 20 else { fail("only \(accepted) of \(count) checkpoints were accepted") }
  }

  /// One byte of the pickle is another, and the archive has no checksums.
  private static func damaged(_ bytes: [UInt8], _ generator: inout SplitMix64) -> [UInt8] {
    guard let zip = bytes.firstRange(of: Array("m/data.pkl".utf8)) else { fail("no pickle") }
    var damaged = bytes
    let directory = [0x50, 0x4B, 0x01, 0x02] as [UInt8]
    var at = damaged.startIndex
    while let record = damaged[at...].firstRange(of: directory) {
      damaged.replaceSubrange(record.lowerBound + 16..<record.lowerBound + 20, with: [0, 0, 0, 0])
      at = record.upperBound
    }
    guard let end = bytes.firstRange(of: Array("m/.format_version".utf8)) else { fail("no end of the pickle") }
    let place = Int.random(in: zip.upperBound..<end.lowerBound - 30, using: &generator)
    damaged[place] =
      Bool.random(using: &generator)
      ? UInt8.random(in: 0...255, using: &generator) : damaged[place] ^ 1 << UInt8.random(in: 0..<8, using: &generator)
    return damaged
  }

  /// True when the checkpoint is accepted; ends the process when an invariant does not hold.
  private static func check(_ directory: TemporaryDirectory, _ name: String) throws -> Bool {
    do {
      let checkpoint = try ZeROCheckpoint(InputDirectory(path: directory.path))
      for (index, tensor) in checkpoint.tensors.enumerated() {
        guard checkpoint.index(of: tensor.name) == index, tensor.byteCount < 1 << 16 else {
          fail("\(name): tensor \(index) is misplaced")
        }
        _ = try checkpoint.bytes(index)
      }
      return true
    } catch let failure as Failure {
      let text = failure.description
      guard [.malformed, .unsupported, .missing].contains(failure.code), text.utf8.count <= 4096, failure.file != nil,
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
