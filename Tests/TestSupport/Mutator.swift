/// Damages files in the ways that parsers get wrong, the same way for the same seed.
public struct Mutator: Sendable {
  private var generator: SplitMix64

  public init(seed: UInt64) { generator = SplitMix64(seed: seed) }

  /// Values at the edges of what integers, sizes and JSON can express.
  private static let numbers = [
    "0", "1", "-1", "4", "8", "12", "16", "18446744073709551615", "18446744073709551616", "9223372036854775807",
    "9223372036854775808", "4611686018427387904", "4294967296", "2147483648", "9007199254740993", "1e400", "0.5", "-0",
    "01",
  ]
  private static let pieces = [
    "{", "}", "[", "]", ",", ":", "\"", "\\", "\\u0061", "\\ud800", "null", "true", " ", "\0", "__metadata__", "dtype",
    "shape",
    "data_offsets", "F4", "F64", "BF16", "[0,0]", "[0,2]", "{}", "\u{feff}", "\u{e9}",
  ]

  /// One to three random edits.
  public mutating func mutated(_ bytes: [UInt8]) -> [UInt8] {
    var result = bytes
    for _ in 0..<Int.random(in: 1...3, using: &generator) { edit(&result) }
    return result
  }

  private mutating func edit(_ bytes: inout [UInt8]) {
    func index(_ limit: Int) -> Int { Int.random(in: 0..<max(1, limit), using: &generator) }
    guard bytes.count > 8 else { return bytes.append(UInt8.random(in: 0...255, using: &generator)) }
    let at = index(bytes.count)
    switch index(9) {
    case 0: bytes[at] = UInt8.random(in: 0...255, using: &generator)
    case 1: bytes[at] ^= 1 << UInt8(index(8))
    case 2: bytes.removeLast(index(bytes.count - at) + 1)
    case 3: bytes.insert(UInt8.random(in: 0...255, using: &generator), at: at)
    case 4: bytes.removeSubrange(at..<min(bytes.count, at + 1 + index(8)))
    case 5:
      bytes.replaceSubrange(
        at..<min(bytes.count, at + index(4)), with: Array(Self.pieces[index(Self.pieces.count)].utf8))
    case 6: replaceNumber(in: &bytes, from: at)
    case 7:
      let piece = bytes[at..<min(bytes.count, at + 1 + index(60))]
      bytes.insert(contentsOf: piece, at: index(bytes.count))
    default:
      // The length before a safetensors header, adjusted or at an edge.
      let edges: [UInt64] = [0, 1, 2, 100_000_000, 100_000_001, 1 << 31, 1 << 32, 1 << 63, .max, .max - 7]
      let length = index(2) == 0 ? edges[index(edges.count)] : UInt64(max(0, bytes.count - 8 - index(24)))
      bytes.replaceSubrange(0..<8, with: SafetensorsBuilder.littleEndian(length))
    }
  }

  private mutating func replaceNumber(in bytes: inout [UInt8], from start: Int) {
    func isDigit(_ byte: UInt8) -> Bool { byte >= 0x30 && byte <= 0x39 }
    guard let begin = bytes[start...].firstIndex(where: isDigit) else { return }
    let end = bytes[begin...].firstIndex { !isDigit($0) } ?? bytes.endIndex
    let number = Self.numbers[Int.random(in: 0..<Self.numbers.count, using: &generator)]
    bytes.replaceSubrange(begin..<end, with: Array(number.utf8))
  }

  /// After an edit of the JSON, the length that makes it the whole header again: without it nearly every
  /// edit that changes the size would be rejected for its length alone.
  public static func withFittingLength(_ bytes: [UInt8], data: Int) -> [UInt8] {
    guard bytes.count >= 8 + data else { return bytes }
    return SafetensorsBuilder.littleEndian(UInt64(bytes.count - 8 - data)) + bytes[8...]
  }
}
