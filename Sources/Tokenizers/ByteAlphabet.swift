/// How byte-level BPE writes bytes as characters that can be seen: printable Latin-1 as itself, the others from
/// U+0100 on, in order.
enum ByteAlphabet {
  static let scalars: [Unicode.Scalar] = {
    var next: UInt8 = 0
    return (0...UInt8.max).map { byte in
      switch byte {
      case 0x21...0x7E, 0xA1...0xAC, 0xAE...0xFF: return Unicode.Scalar(byte)
      default:
        defer { next += 1 }
        // Below U+0200: 68 bytes are not printable.
        return Unicode.Scalar(0x100 + UInt16(next)) ?? "?"
      }
    }
  }()

  static let bytes: [Unicode.Scalar: UInt8] = Dictionary(
    uniqueKeysWithValues: zip(scalars, UInt8.min...UInt8.max))

  /// The text that a decoder makes of a token; one with any other character stands for itself.
  static func decoded(_ token: String) -> String {
    var decoded: [UInt8] = []
    for scalar in token.unicodeScalars {
      guard let byte = bytes[scalar] else { return token }
      decoded.append(byte)
    }
    return String(decoding: decoded, as: UTF8.self)
  }
}
