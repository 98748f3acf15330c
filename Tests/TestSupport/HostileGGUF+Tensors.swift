extension HostileGGUF {
  static let names: [HostileFile] =
    [UInt64.max, 1 << 63, 10_000_000, 65].map { (length: UInt64) -> HostileFile in
      row("tensor name of \(length) bytes", "a tensor's name has \(length) bytes, allowed are 64") {
        $0.tensors[0].nameLength = length
      }
    } + [
      row(
        "tensor name of 65 bytes that are there", "a tensor's name has 65 bytes",
        twin: { $0.tensors[0].name = [UInt8](repeating: 0x6E, count: 64) },
        change: { $0.tensors[0].name = [UInt8](repeating: 0x6E, count: 65) }),
      row("tensor name that is not UTF-8", "a tensor's name is not UTF-8, or holds a NUL") {
        $0.tensors[0].name = [0xC0, 0x80]
      },
      row("tensor name with a NUL", "a tensor's name is not UTF-8, or holds a NUL") {
        $0.tensors[0].name = Array("a\0".utf8)
      },
      row(
        "tensor twice", "the name occurs twice, first at offset", tensor: "é",
        // Equal by Unicode's rules, not by their bytes.
        twin: {
          $0.tensors[0].name = Array("\u{e9}".utf8)
          $0.tensors[1].name = Array("e\u{301}".utf8)
        }, change: { for index in [0, 2] { $0.tensors[index].name = Array("\u{e9}".utf8) } }),
      row("tensor twice, empty", "the name occurs twice", tensor: "empty") {
        let tensor = GGUFBuilder.Tensor("empty", 0, [0], [])
        $0.tensors.insert(contentsOf: [tensor, tensor], at: 1)
      },
    ]

  /// One tensor `a` with these dimensions and no data.
  private static func shape(
    _ name: String, _ message: String, type: UInt32 = 0, _ dimensions: [UInt64],
    twin: @escaping @Sendable (inout GGUFBuilder) -> Void = { _ in }
  ) -> HostileFile {
    row("shape: \(name)", message, tensor: "a", of: .one, twin: twin) {
      $0.tensors[0].type = type
      $0.tensors[0].dimensions = dimensions
    }
  }

  static let shapes: [HostileFile] =
    [UInt32(5), 8, 9, 1 << 31, .max].map { (rank: UInt32) -> HostileFile in
      row("\(rank) dimensions", "has \(rank) dimensions, allowed are 4", tensor: "a", of: .one) {
        $0.tensors[0].rank = rank
      }
    } + [
      shape("5 dimensions that are there", "has 5 dimensions", [4, 1, 1, 1, 1]) {
        $0.tensors[0].dimensions = [4, 1, 1, 1]
      },
      shape("2^32 × 2^32", "overflows", [1 << 32, 1 << 32]),
      shape("2^16 four times", "overflows", [1 << 16, 1 << 16, 1 << 16, 1 << 16]),
      shape("4 × INT32_MAX, squared", "overflows", [8_589_934_588, 8_589_934_588]),
      // 2^64 + 8 elements.
      shape("wraps to 8", "overflows", [4, 2_305_843_009_213_693_953, 2]),
      shape("behind a zero", "overflows", [0, 1 << 62, 1 << 62]),
      shape("before a zero", "overflows", [1 << 62, 1 << 62, 0]),
      shape("I64 of 2^63 bytes", "overflows", type: 27, [1_518_500_250, 1_518_500_250]),
      shape("F32 of 2^64 - 4 bytes", "overflows", type: 0, [4_611_686_018_427_387_903]),
      shape("Q8_0 whose bytes overflow", "overflows", type: 8, [1 << 63 - 32]),
      shape("I8 of 2^63 - 1 bytes", "data is cut short: 9223372036854775807 bytes at 0", type: 24, [1 << 63 - 1]),
      shape("Q4_0 of 31", "a row of 31 values is not whole blocks of 32, as q4_0 needs", type: 2, [31]),
      shape("Q4_K of 128", "a row of 128 values is not whole blocks of 256", type: 12, [128]),
      shape("Q6_K of 255 × 2", "a row of 255 values is not whole blocks of 256", type: 14, [255, 2]),
      shape("Q4_0 whose rows are no blocks", "a row of 16 values is not whole blocks of 32", type: 2, [16, 2]),
      shape("a block as a scalar", "a row of 1 values is not whole blocks of 32", type: 2, []),
      shape(
        "F32 of 1 000 000, 16 bytes there", "data is cut short: 4000000 bytes at 0 of the data section", [1_000_000]),
      shape("F16 of 1 000 000, 16 bytes there", "data is cut short: 2000000 bytes at 0", type: 1, [1000, 1000]),
      shape("Q8_0 of 1 000 000, 16 bytes there", "data is cut short: 1062500 bytes at 0", type: 8, [1_000_000]),
      row("two of 2^63 - 64 bytes", "data is cut short", tensor: "a", of: .one) {
        let size: UInt64 = 1 << 63 - 64
        $0.tensors = [.init("a", 24, [size], []), .init("b", 24, [size], [], offset: size)]
      },
      row("three of 2^62 bytes", "the tensors before it overflow 63 bits", tensor: "c", of: .one) {
        let size: UInt64 = 1 << 62
        $0.tensors = [
          .init("a", 24, [size], []), .init("b", 24, [size], [], offset: size), .init("c", 24, [1], [], offset: 0),
        ]
      },
      // The padding after the first wraps to 0.
      row("2^63 - 1 bytes, then one", "the tensors before it overflow 63 bits", tensor: "b", of: .one) {
        $0.tensors = [.init("a", 24, [1 << 63 - 1], []), .init("b", 24, [1], [1], offset: 0)]
      },
    ]
    + (0..<4).flatMap { (position: Int) -> [HostileFile] in
      [UInt64.max, 1 << 63].map { (length: UInt64) -> HostileFile in
        row(
          "dimension \(position) is \(length)", "has a dimension of \(length), allowed are", tensor: "a", of: .one,
          twin: {
            $0.tensors[0].dimensions = [1, 1, 1, 1]
            $0.tensors[0].dimensions[position] = 4
          },
          change: {
            $0.tensors[0].dimensions = [1, 1, 1, 1]
            $0.tensors[0].dimensions[position] = length
          })
      }
    }

  static let types: [HostileFile] =
    [UInt32(43), 99, 255, 1 << 31, .max].map { (type: UInt32) -> HostileFile in
      row("type \(type)", "has the unknown type \(type)", tensor: "a", of: .one) { $0.tensors[0].type = type }
    }
    + [
      (UInt32(4), "q4_2"), (5, "q4_3"), (31, "q4_0_4_4"), (32, "q4_0_4_8"), (33, "q4_0_8_8"), (36, "iq4_nl_4_4"),
      (37, "iq4_nl_4_8"), (38, "iq4_nl_8_8"),
    ].map { (type: UInt32, name: String) -> HostileFile in
      row(
        "removed type \(type)", exitCode: 69, "has type \(type) (\(name)), which ggml no longer reads either",
        tensor: "a", of: .one
      ) { $0.tensors[0].type = type }
    }

  static let offsets: [HostileFile] =
    [UInt64(4), 16, 64, 96, 1 << 40, 1 << 63 - 1, 1 << 63, UInt64.max - 63, .max].map {
      (offset: UInt64) -> HostileFile in
      row(
        "offset \(offset)", "data begins at \(offset) of the data section, expected 32", tensor: "b.weight",
        twin: { $0.tensors[1].offset = 32 }, change: { $0.tensors[1].offset = offset })
    } + [
      row("first offset 32", "data begins at 32 of the data section, expected 0", tensor: "a", of: .one) {
        $0.tensors[0].offset = 32
        $0.tail = [UInt8](repeating: 0, count: 64)
      },
      row("offset at the one before", "data begins at 0 of the data section, expected 32", tensor: "b.weight") {
        $0.tensors[1].offset = 0
      },
      row("offsets in another order", "data begins at 32 of the data section, expected 0", tensor: "a.weight") {
        $0.tensors[0].offset = 32
        $0.tensors[1].offset = 0
      },
    ]

  static let data: [HostileFile] = [
    row(
      "a byte of data missing", "data is cut short: 6 bytes at 96 of the data section, the file has 101",
      tensor: "c.bias", twin: { $0.isPadded = false },
      change: {
        $0.isPadded = false
        $0.tensors[2].data.removeLast()
      }),
    row(
      "all data missing", "data is cut short: 16 bytes at 0 of the data section, the file has 0", tensor: "a", of: .one,
      twin: { $0.tensors = [] }, change: { $0.tensors[0].data = [] }),
  ]

  /// A valid file, cut at every byte of header and data: without the padding after the last tensor it is whole.
  public static let cuts: [HostileFile] = {
    var builder = GGUFBuilder.small
    builder.isPadded = false
    let whole = builder.bytes
    return whole.indices.map { count in
      HostileFile(
        "GGUF cut after \(count) of \(whole.count) bytes", "", bytes: { Array(whole.prefix(count)) }, twin: { whole })
    }
  }()
}
