import Foundation
import Testing

@testable import Quantization

/// What MLX itself made of values that are made here again; `fixtures/mlx/make_golden.py` describes the file.
struct GroupGolden: Sendable {
  struct Record: Sendable {
    var format: GroupFormat
    var type: FloatType
    var kind: String
    var digest: String
    var bytes: [UInt8]
  }

  static let count = 256
  static let kinds = ["ordinary", "positive", "negative", "constant", "zeros", "sparse", "ties", "small", "great"]

  static let records: [Record] = {
    let path = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../../fixtures/mlx/golden.bin")
    guard let data = FileManager.default.contents(atPath: path.path) else { fatalError("cannot read \(path)") }
    let bytes = Array(data)
    var records: [Record] = []
    var position = 0
    while let end = bytes[position...].firstIndex(of: 10) {
      let words = String(decoding: bytes[position..<end], as: UTF8.self).split(separator: " ").map(String.init)
      guard words.count == 7, let mode = GroupFormat.Mode(rawValue: words[0]), let bits = Int(words[1]),
        let size = Int(words[2]), let format = GroupFormat(mode: mode, bits: bits, groupSize: size),
        let type = FloatType(rawValue: words[3]), let count = Int(words[6])
      else { fatalError("\(words)") }
      let data = Array(bytes[end + 1..<end + 1 + count])
      records.append(Record(format: format, type: type, kind: words[4], digest: words[5], bytes: data))
      position = end + 1 + count
    }
    return records
  }()

  /// The sum of four numbers of 16 bits, about 0.
  static func bell(_ word: UInt64) -> Int {
    [0, 16, 32, 48].reduce(-131070) { $0 + Int(word >> UInt64($1) & 0xFFFF) }
  }

  static func values(_ kind: String, bits: Int, _ type: FloatType) throws -> Values {
    var random = Random(200 + UInt64(try #require(kinds.firstIndex(of: kind))))
    let steps = 1 << bits - 1
    let values = try (0..<count).map { index in
      let (word, other) = (random.next(), random.next())
      func scaled(_ exponent: Int) -> Double {
        Double(sign: .plus, exponent: exponent - 20, significand: Double(bell(word)))
      }
      switch kind {
      case "ordinary": return scaled(0)
      case "positive": return scaled(0) + 0.25
      case "negative": return scaled(0) - 0.25
      case "constant": return 0.75 - Double(index / 32) * 0.25
      case "zeros": return word % 2 == 0 ? 0.0 : -0.0
      case "sparse": return other % 16 == 0 ? scaled(0) : 0
      case "ties": return index % 32 == 0 ? Double(steps) : Double(word % UInt64(2 * steps + 1)) * 0.5
      case "small": return scaled(-20)
      case "great": return scaled(type == .f16 ? 18 : 120)
      default: throw Unknown(kind: kind)
      }
    }
    return Values(values, as: type)
  }

  struct Unknown: Error { var kind: String }

  /// 64-bit FNV-1a, in hexadecimal.
  static func digest(_ bytes: [UInt8]) -> String {
    let digest = bytes.reduce(0xCBF2_9CE4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }
    let text = String(digest, radix: 16)
    return String(repeating: "0", count: 16 - text.count) + text
  }
}

extension KernelTests {
  @Suite struct GroupsOfMLX {
    @Test func complete() {
      #expect(
        GroupGolden.records.count == GroupFormat.all.count * FloatType.allCases.count * GroupGolden.kinds.count)
    }

    /// Byte for byte what MLX writes and reads, by the twin and on every instruction set.
    @Test(arguments: GroupFormat.all)
    func sameBytes(_ format: GroupFormat) throws {
      let records = GroupGolden.records.filter { $0.format == format }
      #expect(records.count == FloatType.allCases.count * GroupGolden.kinds.count)
      for record in records {
        let values = try GroupGolden.values(record.kind, bits: format.bits, record.type)
        let all: [FloatType] = record.kind == "great" ? [.bf16, .f32] : [.bf16, .f32, .f16]
        let outputs = format.mode == .affine ? [record.type] : all
        func check(_ title: String, byReference: Bool) throws {
          let groups = try format.quantized(values, byReference: byReference)
          let sizes = (groups.packed.count, groups.packed.count + groups.scales.count)
          let expected = Groups(
            packed: Array(record.bytes.prefix(sizes.0)), scales: Array(record.bytes[sizes.0..<sizes.1]),
            biases: Array(record.bytes[sizes.1...]))
          if let difference = format.difference(groups, from: expected) { Issue.record("\(title): \(difference)") }
          let found = outputs.flatMap { type in
            format.dequantized(
              expected, scaleType: record.type, count: values.count, as: type, byReference: byReference
            ).bytes
          }
          #expect(GroupGolden.digest(found) == record.digest, "\(title): dequantized")
        }
        try check("\(record.type) \(record.kind), twin", byReference: true)
        for target in Target.all {
          try Target.with(target) {
            try check("\(record.type) \(record.kind), on \(KernelTarget.names[target])", byReference: false)
          }
        }
      }
    }
  }
}
