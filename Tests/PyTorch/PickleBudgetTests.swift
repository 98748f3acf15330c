import Bytes
import Foundation
import PyTorch
import TestSupport
import Testing

/// What pickles take that consist of as much as fits: memory is bounded as promised, and work is linear.
///
/// A debug build gets smaller ones.
@Suite(.serialized) struct PickleBudgetTests {
  /// Pieces that are repeated, and what comes before and after them.
  static let floods: [(name: String, before: [UInt8], piece: [UInt8], after: [UInt8])] = [
    ("lists", [], [0x5D], []), ("constants", [], [0x4E], []), ("marks", [], [0x28], []),
    ("lists of lists", [0x5D], [0x5D, 0x61], []),
    ("tuples in tuples", [0x4E], [0x85], []), ("memo", [0x4E], [0x94], []), ("texts", [], [0x8C, 0], []),
    ("references", [], [0x4E, 0x51], []), ("calls", [], Pickle.global("a", "b") + [0x29, 0x52], []),
    ("states", [], Pickle.global("a", "b") + [0x29, 0x81, 0x4E, 0x62], []),
    ("dictionaries", [0x4E], [0x30, 0x7D, 0x4B, 1, 0x4E, 0x4B, 2, 0x4E, 0x28, 0x31], []),
    ("one dictionary", [0x7D], [0x47, 1, 2, 3, 4, 5, 6, 7, 8, 0x4E, 0x73], []),
    ("pops", [0x4E], [0x32, 0x30], []),
  ]

  static var size: Int { Build.isOptimized ? 60 << 20 : 1 << 20 }

  #if os(Linux)
    @Test(arguments: floods.indices) func flood(_ row: Int) async {
      await #expect(processExitsWith: .success, "\(Self.floods[row].name)") { [row] in
        let flood = PickleBudgetTests.floods[row]
        var pickle = [0x80, 2] + flood.before
        pickle.reserveCapacity(PickleBudgetTests.size + 1000)
        while pickle.count < PickleBudgetTests.size { pickle += flood.piece }
        PickleBudgetTests.check(pickle + flood.after + [0x2E])
      }
    }

    /// Few long texts as keys of many dictionaries: comparing them for each would take hours.
    @Test func longKeys() async {
      await #expect(processExitsWith: .success) {
        let count = 100
        let length = PickleBudgetTests.size / 2 / count
        var pickle: [UInt8] = [0x80, 2, 0x5D]
        for key in 0..<count {
          pickle += Pickle.text(String(repeating: "a", count: length) + "\(key)") + [0x71, UInt8(key), 0x30]
        }
        let keys: [UInt8] = (0..<count).flatMap { [0x68, UInt8($0), 0x4E] as [UInt8] }
        let dictionary: [UInt8] = [0x7D, 0x28] + keys + [0x75, 0x61]
        while pickle.count < PickleBudgetTests.size { pickle += dictionary }
        PickleBudgetTests.check(pickle + [0x2E])
      }
    }

    /// Entries of the memo under numbers far apart, and as many different keys as fit.
    @Test func sparseMemoAndManyKeys() async {
      await #expect(processExitsWith: .success) {
        var pickle: [UInt8] = [0x80, 2, 0x4E]
        var number: UInt32 = 7
        while pickle.count < PickleBudgetTests.size / 2 {
          pickle += [0x72] + Pickle.little(number, 4)
          number += 11
        }
        pickle += [0x30, 0x7D]
        while pickle.count < PickleBudgetTests.size {
          pickle += [0x8C, 4] + Pickle.little(number & 0x7F7F_7F7F, 4) + [0x4E, 0x73]
          number += 1
          if number & 0x80 != 0 { number += 0x80 }
        }
        PickleBudgetTests.check(pickle + [0x2E])
      }
    }

    /// Ends the process with a message when reading takes too much memory.
    static func check(_ pickle: [UInt8]) {
      do {
        let directory = try TemporaryDirectory()
        // The checksum bit by bit takes longer than all that is measured.
        let path = try directory.write(
          "m.bin",
          TorchBuilder.zip([]) { zip in
            zip["data.pkl"].data = pickle
            zip["data.pkl"].crc = 0
          })
        let file = try InputFile(path: path)
        Budget.check(limit: max(16 * size, 64 << 20)) {
          do throws(Failure) {
            _ = try PyTorchArchive(file)
          } catch { guard error.code == .malformed else { throw error } }
        }
      } catch {
        FileHandle.standardError.write(Data("\(error)\n".utf8))
        exit(1)
      }
    }
  #endif
}
