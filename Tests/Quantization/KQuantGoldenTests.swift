import Foundation
import Testing

@testable import Quantization

/// What ggml itself made of values that are made here again; `fixtures/kquants/make_golden.py` describes the file.
struct KQuantGolden: Sendable {
  struct Record: Sendable {
    var type: String
    var isWeighted: Bool
    var kind: String
    var blocks: [UInt8]
  }

  static let rows = 2
  static let columns = 512
  static let kinds = [
    "ordinary", "heavy", "uneven", "constant", "sparse", "zeros", "subnormal", "mixed", "positive", "small",
  ]

  static let records: [Record] = {
    let path = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../../fixtures/kquants/golden.bin")
    guard let data = FileManager.default.contents(atPath: path.path) else { fatalError("cannot read \(path)") }
    let bytes = Array(data)
    var records: [Record] = []
    var position = 0
    while let end = bytes[position...].firstIndex(of: 10) {
      let words = String(decoding: bytes[position..<end], as: UTF8.self).split(separator: " ").map(String.init)
      guard words.count == 4, let count = Int(words[3]) else { fatalError("\(words)") }
      let blocks = Array(bytes[end + 1..<end + 1 + count])
      records.append(Record(type: words[0], isWeighted: words[1] == "weighted", kind: words[2], blocks: blocks))
      position = end + 1 + count
    }
    return records
  }()

  /// The sum of four numbers of 16 bits, about 0.
  static func bell(_ word: UInt64) -> Int {
    [0, 16, 32, 48].reduce(-131070) { $0 + Int(word >> UInt64($1) & 0xFFFF) }
  }

  static func values(_ kind: String) throws -> [Float] {
    var random = Random(100 + UInt64(try #require(kinds.firstIndex(of: kind))))
    return try (0..<rows * columns).map { index in
      let (word, other) = (random.next(), random.next())
      let ordinary = Float(sign: .plus, exponent: -20, significand: Float(bell(word)))
      let subnormal = Float(bitPattern: UInt32(truncatingIfNeeded: word) & 0x807F_FFFF)
      func scaled(_ exponent: Int) -> Float { Float(sign: .plus, exponent: exponent, significand: ordinary) }
      switch kind {
      case "ordinary": return ordinary
      case "heavy": return scaled(Int(other % 12))
      case "uneven": return scaled(index / 16 * 7 % 20 - 10)
      case "constant": return 0.75 - Float(index / 64) * 0.125
      case "sparse": return other % 16 == 0 ? ordinary : 0
      case "zeros": return 0
      case "subnormal": return subnormal
      case "mixed": return index / 16 % 3 == 0 ? subnormal : ordinary
      case "positive": return ordinary + 0.25
      case "small": return scaled(-40)
      default: throw Unknown(kind: kind)
      }
    }
  }

  struct Unknown: Error { var kind: String }

  /// Squares of numbers of 12 bits; one in sixteen is zero.
  static let importance: [Float] = {
    var random = Random(99)
    return (0..<columns).map { _ in
      let word = random.next()
      let root = Float(word >> 32 & 15 == 0 ? 0 : word % 4096)
      return root * root * 0x1p-20
    }
  }()
}

extension KernelTests {
  @Suite struct KQuantsOfGGML {
    @Test func complete() {
      #expect(KQuantGolden.records.count == KQuantEncoder.all.count * 2 * KQuantGolden.kinds.count)
    }

    /// Byte for byte what ggml writes, by the twin and on every instruction set.
    @Test(arguments: KQuantEncoder.all)
    func sameBytes(_ encoder: KQuantEncoder) throws {
      let records = KQuantGolden.records.filter { $0.type == encoder.name }
      #expect(records.count == 2 * KQuantGolden.kinds.count)
      for record in records {
        let values = try KQuantGolden.values(record.kind)
        let importance = record.isWeighted ? KQuantGolden.importance : nil
        let title = "\(record.kind), \(record.isWeighted ? "weighted" : "plain")"
        let twin = encoder.twin(values, KQuantGolden.columns, importance)
        if let difference = encoder.difference(twin, from: record.blocks) {
          Issue.record("\(title), twin: \(difference)")
        }
        for target in Target.all {
          let found = Target.with(target) {
            encoder.encode(values, rowLength: KQuantGolden.columns, importance: importance)
          }
          if let difference = encoder.difference(found, from: record.blocks) {
            Issue.record("\(title), on \(KernelTarget.names[target]): \(difference)")
          }
        }
      }
    }
  }
}
