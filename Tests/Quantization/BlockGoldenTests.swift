import Foundation
import Testing

@testable import Quantization

/// What ggml itself computed; `fixtures/quantization/make_blocks.py` describes the file.
struct BlockDigest: Sendable, CustomTestStringConvertible {
  var isEncoding: Bool
  var type: BlockType
  var count: Int
  var digest: UInt64
  var testDescription: String { "\(isEncoding ? "encode" : "decode") \(type.name)" }

  static let all: [BlockDigest] = {
    let path = URL(filePath: #filePath).deletingLastPathComponent()
      .appending(path: "../../fixtures/quantization/blocks.txt").path
    guard let text = try? String(contentsOfFile: path, encoding: .utf8) else { fatalError("cannot read \(path)") }
    return text.split(separator: "\n").map { line in
      let words = line.split(separator: " ")
      guard words.count == 4, let type = BlockType(rawValue: String(words[1])), let count = Int(words[2]),
        let digest = UInt64(words[3], radix: 16)
      else { fatalError("\(line)") }
      return BlockDigest(isEncoding: words[0] == "encode", type: type, count: count, digest: digest)
    }
  }()

  static func of(_ words: some Sequence<UInt32>) -> UInt64 {
    var sum: UInt64 = 0
    for (index, word) in words.enumerated() { sum &+= mixed(UInt64(index) << 32 | UInt64(word)) }
    return sum
  }

  private static func mixed(_ word: UInt64) -> UInt64 {
    var z = (word ^ word >> 30) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
    return z ^ z >> 31
  }

  static func values(_ seed: UInt64, pieces: Int, lowest: UInt64) -> [Float] {
    var random = Random(seed)
    return (0..<pieces).flatMap { _ in
      let first = random.next()
      let exponent = Int(lowest + first % (142 - lowest))
      let kind = first >> 32 % 4
      return (0..<256).map { _ in
        let word = random.next()
        let sign = UInt32(word >> 63) << 31
        if kind == 3 { return Float(bitPattern: sign) }
        if kind == 2 { return Float(Double(sign: .plus, exponent: exponent - 127, significand: Double(word & 15) - 8)) }
        if word >> 32 & 15 == 0 { return Float(bitPattern: sign) }
        let binade = UInt32(max(exponent - Int(word >> 23 & 7), 0))
        return Float(bitPattern: sign | binade << 23 | UInt32(word & 0x7F_FFFF))
      }
    }
  }
}

extension KernelTests {
  @Suite struct BlockGolden {
    @Test func isComplete() {
      let decoded = Set(BlockDigest.all.filter { !$0.isEncoding }.map(\.type))
      let encoded = Set(BlockDigest.all.filter(\.isEncoding).map(\.type))
      #expect(decoded == Set(BlockType.allCases))
      // Others search for their scales, and are held to ggml by their error.
      #expect(encoded == Set(BlockType.allCases.filter { $0.row.codec is any BlockEncoder.Type }))
    }

    @Test(arguments: BlockDigest.all)
    func agrees(_ golden: BlockDigest) throws {
      for target in golden.type.row.decoder == nil ? [0] : Target.all {
        try Target.with(target) {
          if golden.isEncoding {
            let values = BlockDigest.values(2, pieces: golden.count, lowest: golden.type == .mxfp4 ? 10 : 0)
            let blocks = try golden.type.encoded(values)
            #expect(BlockDigest.of(blocks.map(UInt32.init)) == golden.digest, "\(simdTarget)")
          } else {
            var random = Random(1)
            let values = golden.type.decoded(random.bytes(golden.count * golden.type.bytesPerBlock))
            #expect(BlockDigest.of(bits(values)) == golden.digest, "\(simdTarget)")
          }
        }
      }
    }
  }
}
