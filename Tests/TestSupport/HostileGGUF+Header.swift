extension HostileGGUF {
  private static let empty = GGUFBuilder()

  /// The 24 bytes that every file has, cut.
  static let beginnings: [HostileFile] = (0..<4).map { count in
    HostileFile(
      "GGUF cut after \(count) bytes", "ends inside the magic number: 4 bytes are needed, \(count) remain",
      bytes: { Array(empty.bytes.prefix(count)) }, twin: { empty.bytes })
  }

  static let magics: [HostileFile] =
    ["GGML", "lmgg", "GGMF", "GGJT"].map { (text: String) -> HostileFile in
      magic(Array(text.utf8), exitCode: 69, "is a model in the format before GGUF (GGML), expected GGUF")
    } + [
      magic(Array("gguf".utf8), "begins with 67 67 75 66, a GGUF file begins with 47 47 55 46"),
      magic(Array("PYTO".utf8), "begins with 50 59 54 4f"), magic([0, 0x1B, 0x9B, 0xFF], "begins with 00 1b 9b ff"),
    ]

  /// What PyTorch writes begins so, which the tool reads where it is named itself.
  public static let zip = magic(
    Array("PK\u{3}\u{4}".utf8), exitCode: 69, "is a ZIP archive (a PyTorch checkpoint?), expected GGUF")

  private static func magic(_ magic: [UInt8], exitCode: Int32 = 65, _ message: String) -> HostileFile {
    row("magic \(magic)", exitCode: exitCode, message) { $0.magic = magic }
  }

  /// Versions, and the two numbers after it.
  static let counts: [HostileFile] =
    (4..<24).map { (count: Int) -> HostileFile in
      let field = count < 8 ? "the version" : count < 16 ? "the number of tensors" : "the number of metadata pairs"
      return HostileFile(
        "GGUF cut after \(count) bytes", "ends inside \(field)", bytes: { Array(empty.bytes.prefix(count)) },
        twin: { empty.bytes })
    } + [
      row("magic of the other byte order", exitCode: 69, "is a GGUF file with its bytes swapped (big-endian)") {
        $0.magic = Array("FUGG".utf8)
      },
      row(
        "version 1", exitCode: 69, "is GGUF version 1, read are 2 and 3", twin: { $0.version = 2 },
        change: {
          $0.version = 1
        }),
      row("big-endian version 3", exitCode: 69, "is a big-endian GGUF file (version 3)") { $0.version = 0x0300_0000 },
      row("big-endian version 2", exitCode: 69, "is a big-endian GGUF file (version 2)") { $0.version = 0x0200_0000 },
      row("tensors and pairs that fit, but not both", "10 tensors and 20 metadata pairs do not fit", of: empty) {
        $0.tail = [UInt8](repeating: 0, count: 300)
        $0.tensorCount = 10
        $0.pairCount = 20
      },
    ]
    + [0, 4, 0x0400_0000, UInt32.max].map { (version: UInt32) -> HostileFile in
      row("version \(version)", "GGUF version is \(version), known are 2 and 3") { $0.version = version }
    }
    + absurd.map { (count: UInt64) -> HostileFile in
      row("\(count) tensors in 24 bytes", "declares \(count) tensors, the file has room for 0 at most", of: empty) {
        $0.tensorCount = count
      }
    }
    + absurd.map { (count: UInt64) -> HostileFile in
      row("\(count) pairs in 24 bytes", "declares \(count) metadata pairs, the file has room for 0", of: empty) {
        $0.pairCount = count
      }
    } + [
      row("a tensor too many", "ends inside the length of a tensor's name", of: .one) {
        $0.tensorCount = 2
        $0.isPadded = false
        $0.alignment = 1
        $0.tensors[0].data = []
        $0.tail = []
        $0.pairs = [GGUFBuilder.Pair("k", .string(String(repeating: "x", count: 64)))]
      },
      row("a pair too many", "a tensor's name has 562949953421312 bytes, allowed are 64") { $0.pairCount = 7 },
    ]

  private static let absurd: [UInt64] = [.max, 1 << 63, 1 << 63 - 1, 1 << 60, 1 << 32, 1_000_000, 1]

  static let keys: [HostileFile] =
    [UInt64.max, 1 << 63, 1 << 62, 65_536, 0].map { (length: UInt64) -> HostileFile in
      row("key of \(length) bytes", "a key of \(length) bytes, allowed are 1 to 65535, at offset 24") {
        $0.pairs[0].keyLength = length
      }
    } + [
      row("key longer than the file", "ends inside a key of 65535 bytes") { $0.pairs[0].keyLength = 65_535 },
      row(
        "key of 65 536 bytes", "a key of 65536 bytes", twin: { $0.pairs[0].key = name(65_535) },
        change: {
          $0.pairs[0].key = name(65_536)
        }),
      row("key that is not UTF-8", "a key is not UTF-8, or holds a NUL") { $0.pairs[1].key = [0x61, 0xFF, 0xFE] },
      row("key with a surrogate", "a key is not UTF-8, or holds a NUL") { $0.pairs[1].key = [0xED, 0xA0, 0x80] },
      row("key with a NUL", "a key is not UTF-8, or holds a NUL") { $0.pairs[1].key = Array("a\0b".utf8) },
      row(
        "key twice", "key 'test.flag' occurs twice, first at offset", twin: { $0.pairs.append(.init("k", .bool(1))) },
        change: {
          $0.pairs.append(.init("test.flag", .bool(1)))
        }),
      row("key twice, of two types", "key 'test.flag' occurs twice, first at offset") {
        $0.pairs.append(.init("test.flag", .uint32(1)))
      },
      row("key twice, neighbours", "key 'k' occurs twice, first at offset 24", of: .one) {
        $0.pairs = [.init("k", .uint8(1)), .init("k", .uint8(2))]
      },
    ]

  private static func name(_ count: Int) -> [UInt8] { [UInt8](repeating: 0x6B, count: count) }
}
