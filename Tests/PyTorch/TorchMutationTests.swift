import Bytes
import Foundation
import PyTorch
import Tensors
import TestSupport
import Testing

/// Thousands of damaged files, always the same: each is read with every invariant in place or refused with a typed
/// failure. Each batch runs in a process of its own, which a trap would end.
///
/// `NIBBLE_FUZZ_SEEDS=1000` runs that many batches.
@Suite(.serialized) struct TorchMutationTests {
  static var seeds: [UInt64] {
    let count = ProcessInfo.processInfo.environment["NIBBLE_FUZZ_SEEDS"].flatMap { UInt64($0) } ?? 4
    return Array(0..<count)
  }

  @Test(arguments: seeds) func damagedFiles(_ seed: UInt64) async {
    await #expect(processExitsWith: .success, "PyTorch, seed \(seed)") { [seed] in
      TorchMutationTests.run(seed: seed, count: 1000)
    }
  }

  /// Without checksums: with them, nearly every change of a pickle would be refused for its checksum alone.
  static let files: [[UInt8]] = [
    TorchBuilder.zip(TorchBuilder.mixed, TorchBuilder.mixedStorages) { zip in
      for index in zip.entries.indices { zip.entries[index].crc = 0 }
    },
    TorchBuilder.mixedLegacy,
  ]

  static let numbers: [UInt64] = [
    0, 1, 2, 5, 6, 7, 24, 255, 256, 65_535, 65_536, 1 << 31, 1 << 32 - 1, 1 << 32, 1 << 62, 1 << 63 - 1, 1 << 63, .max,
  ]

  /// Every instruction there is, and a few that there are not.
  static let instructions = Array(0x28...0x7D) + Array(0x80...0x99) as [UInt8]

  static func run(seed: UInt64, count: Int) {
    var mutator = Mutator(seed: seed)
    var generator = SplitMix64(seed: seed &+ 99)
    guard let directory = try? TemporaryDirectory() else { fail("no directory") }
    var accepted = 0
    for number in 0..<count {
      var bytes = files[number / 4 % files.count]
      let at = Int.random(in: 0..<bytes.count, using: &generator)
      switch number % 4 {
      case 0: bytes = mutator.mutated(bytes)
      case 1:
        let width = [1, 2, 4, 8].randomElement(using: &generator) ?? 1
        let value = Pickle.little(numbers.randomElement(using: &generator) ?? 0, width)
        bytes.replaceSubrange(at..<min(bytes.count, at + width), with: value.prefix(bytes.count - at))
      case 2: bytes[at] = instructions.randomElement(using: &generator) ?? 0
      default: bytes[at] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
      }
      if check(bytes, directory, "seed \(seed), case \(number)") { accepted += 1 }
    }
    // A harness whose every file is refused early would test nothing.
    guard accepted > count / 20 else { fail("only \(accepted) of \(count) files were accepted") }
  }

  /// True when the file is accepted; ends the process when an invariant does not hold.
  static func check(_ bytes: [UInt8], _ directory: TemporaryDirectory, _ name: String) -> Bool {
    do {
      let start = ContinuousClock().now
      defer { if ContinuousClock().now - start > .seconds(60) { fail("\(name): took more than a minute") } }
      let file = try opened(bytes, in: directory)
      for (index, tensor) in file.tensors.enumerated() {
        let view = file.contents.tensors[index]
        guard view.storageRange.upperBound <= bytes.count, file.contents.index(of: tensor.name) == index,
          tensor.shape.reduce(1, *) == tensor.elementCount, view.strides.count == view.shape.count
        else { fail("\(name): tensor \(index) is misplaced") }
        guard tensor.byteCount < 1 << 16 else { continue }
        let data = try file.bytes(index)
        if let range = view.range, data != Array(bytes[range]) {
          fail("\(name): tensor \(index) is read from elsewhere")
        }
      }
      return true
    } catch let failure as Failure {
      let text = failure.description
      guard [.malformed, .unsupported].contains(failure.code), text.utf8.count <= 4096, failure.file == "m.bin",
        !text.utf8.contains(where: { $0 < 0x20 || $0 == 0x7F })
      else { fail("\(name): \(failure.code) \(text)") }
      return false
    } catch { fail("\(name): \(error)") }
  }

  static func fail(_ message: String) -> Never {
    FileHandle.standardError.write(Data((message + "\n").utf8))
    exit(1)
  }
}
