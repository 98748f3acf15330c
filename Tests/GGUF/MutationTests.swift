import Bytes
import Foundation
import GGUF
import Tensors
import TestSupport
import Testing

/// Thousands of damaged files, always the same: each is accepted with every invariant in place or refused with a typed
/// failure. Each batch runs in a process of its own, which a trap would end.
///
/// `NIBBLE_FUZZ_SEEDS=1000` runs that many batches.
@Suite(.serialized) struct GGUFMutationTests {
  static var seeds: [UInt64] {
    let count = ProcessInfo.processInfo.environment["NIBBLE_FUZZ_SEEDS"].flatMap { UInt64($0) } ?? 4
    return Array(0..<count)
  }

  @Test(arguments: seeds) func damagedFiles(_ seed: UInt64) async {
    await #expect(processExitsWith: .success, "GGUF, seed \(seed)") { [seed] in
      GGUFMutationTests.run(seed: seed, count: 1500)
    }
  }

  /// Every byte of a small file, at the edges of what a byte can be.
  @Test func everyByte() async {
    await #expect(processExitsWith: .success) {
      let bytes = GGUFBuilder.small.bytes
      let file = GGUFMutationTests.ScratchFile()
      for index in 0..<GGUFBuilder.small.dataStart {
        for value in [0, 1, 2, 8, 9, 0x7F, 0x80, 0xFF] as [UInt8] where value != bytes[index] {
          var copy = bytes
          copy[index] = value
          file.check(copy, "byte \(index) = \(value)")
        }
      }
    }
  }

  static let files: [[UInt8]] =
    OddFile.gguf.map { $0.bytes() }.filter { $0.count < 2000 } + [GGUFBuilder.small.bytes, GGUFBuilder.one.bytes]

  /// Numbers at the edges of what counts, lengths and offsets can be.
  static let numbers: [UInt64] = [
    0, 1, 4, 7, 9, 31, 32, 33, 64, 65, 255, 65_535, 65_536, 1 << 31, 1 << 32, 1 << 62, 1 << 63 - 1, 1 << 63, .max - 31,
    .max,
  ]

  static func run(seed: UInt64, count: Int) {
    var mutator = Mutator(seed: seed)
    var generator = SplitMix64(seed: seed &+ 77)
    let file = ScratchFile()
    var accepted = 0
    for number in 0..<count {
      var bytes = files[(number + Int(seed)) % files.count]
      switch number % 3 {
      case 0: bytes = mutator.mutated(bytes)
      case 1:
        // Where a number stands is not known: eight or four bytes anywhere.
        let value = GGUFBuilder.littleEndian(numbers.randomElement(using: &generator) ?? 0)
        let width = Bool.random(using: &generator) ? 8 : 4
        let at = Int.random(in: 0...max(0, bytes.count - width), using: &generator)
        bytes.replaceSubrange(at..<min(bytes.count, at + width), with: value.prefix(width))
      default:
        bytes[Int.random(in: 0..<bytes.count, using: &generator)] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
      }
      if file.check(bytes, "seed \(seed), case \(number)") { accepted += 1 }
    }
    // A harness whose every file is refused early would test nothing.
    guard accepted > count / 20 else { fail("only \(accepted) of \(count) files were accepted") }
  }

  static func fail(_ message: String) -> Never {
    FileHandle.standardError.write(Data((message + "\n").utf8))
    exit(1)
  }

  /// A file that is written again for each case.
  struct ScratchFile {
    private let directory: TemporaryDirectory

    init() {
      guard let directory = try? TemporaryDirectory(), (try? directory.write("m.gguf", [])) != nil,
        (try? directory.write("again.gguf", [])) != nil
      else { fail("no directory") }
      self.directory = directory
    }

    /// In the place of what was there: a file that is emptied first is written out to the disk by some file systems.
    private func write(_ name: String, _ bytes: [UInt8], size: Int) throws -> String {
      try directory.overwrite(name, at: 0, with: bytes)
      let file = try FileHandle(forWritingTo: URL(fileURLWithPath: directory.path(name)))
      try file.truncate(atOffset: UInt64(size))
      try file.close()
      return directory.path(name)
    }

    /// True when the file is accepted; ends the process when an invariant does not hold.
    @discardableResult
    func check(_ bytes: [UInt8], _ name: String) -> Bool {
      do {
        let path = try write("m.gguf", bytes, size: bytes.count)
        let start = ContinuousClock().now
        defer { if ContinuousClock().now - start > .seconds(60) { fail("\(name): took more than a minute") } }
        let file = try InputFile(path: path, name: "m.gguf")
        let header = try GGUFHeader(of: file)
        try check(header, size: bytes.count, name)
        return true
      } catch let failure as Failure {
        let text = failure.description
        guard [.malformed, .unsupported].contains(failure.code), text.utf8.count <= 4096,
          !text.utf8.contains(where: { $0 < 0x20 || $0 == 0x7F })
        else { fail("\(name): \(failure.code) \(text)") }
        return false
      } catch { fail("\(name): \(error)") }
    }

    private func check(_ header: GGUFHeader, size: Int, _ name: String) throws {
      var end = header.dataStart
      for (index, tensor) in header.tensors.enumerated() {
        let range = header.range(of: index)
        guard (range.lowerBound - header.dataStart) % header.alignment == 0, range.lowerBound >= end,
          range.lowerBound - end < header.alignment, range.upperBound <= size, range.count == tensor.byteCount
        else { fail("\(name): tensor \(index) is misplaced at \(range)") }
        guard header.index(of: tensor.name) == index else { fail("\(name): tensor \(index) is not found by name") }
        end = range.upperBound
      }
      for (key, value) in header.metadata.pairs {
        guard header.metadata[key]?.type == value.type else { fail("\(name): '\(key)' is not found") }
        if let array = value.array {
          guard try array.values().count == array.count else { fail("\(name): '\(key)' has other elements") }
          _ = try array.byteStrings()
          _ = try array.integers()
          _ = try array.numbers()
        }
      }
      // Written again it says the same, names of 64 bytes excepted.
      guard header.tensors.allSatisfy({ $0.name.byteCount < GGUFTensor.nameLimit }) else { return }
      let layout = try GGUFLayout(name: "again.gguf", metadata: header.metadata, tensors: header.tensors)
      let path = try write("again.gguf", layout.files[0].header, size: layout.files[0].size)
      let again = try GGUFHeader(of: InputFile(path: path))
      guard again.tensors == header.tensors, again.alignment == header.alignment else {
        fail("\(name): changed when written again")
      }
      let second = try GGUFLayout(name: "again.gguf", metadata: again.metadata, tensors: again.tensors)
      guard second.files[0].header == layout.files[0].header else { fail("\(name): not stable") }
    }
  }
}
