extension HostileGGUF {
  /// Values of metadata that are cut short, too long, too deep, or of no type.
  static let values: [HostileFile] =
    strings + typeNumbers + arrays + [
      value("bool 2", "metadata 'v': a bool is 2, allowed are 0 and 1", .bool(2), twin: .bool(1)),
      value("bool 255", "a bool is 255", .bool(255), twin: .bool(0)),
      value(
        "bool 2 in an array", "a bool is 2, allowed are 0 and 1", .array(of: 7, count: 3, [0, 1, 2]),
        twin: .array(of: 7, count: 3, [0, 1, 1])),
      value("number cut short", "ends inside its value: 8 bytes are needed", .init(10, []), twin: .uint64(1)),
    ]

  /// The pair stands last and nothing follows it.
  private static func value(
    _ name: String, _ message: String, _ value: GGUFBuilder.Value, twin: GGUFBuilder.Value
  ) -> HostileFile {
    @Sendable func file(_ value: GGUFBuilder.Value) -> [UInt8] {
      var builder = GGUFBuilder.small
      builder.tensors = []
      builder.isPadded = false
      builder.pairs.append(.init("v", value))
      return builder.bytes
    }
    return HostileFile("value: \(name)", message, bytes: { file(value) }, twin: { file(twin) })
  }

  private static let strings: [HostileFile] =
    [UInt64.max, 1 << 63, 1 << 63 - 1, 1 << 30, 5].map { (length: UInt64) -> HostileFile in
      value(
        "string of \(length) bytes", "a string of \(length) bytes or elements, only 4 bytes remain",
        .string(Array("text".utf8), length: length), twin: .string("text"))
    } + [
      value("string without a length", "ends inside the length of a string", .init(8, [1, 0, 0]), twin: .string(""))
    ]

  private static let typeNumbers: [HostileFile] =
    [UInt32(13), 255, 1 << 31, .max].flatMap { (number: UInt32) -> [HostileFile] in
      [
        value(
          "type \(number)", "metadata 'v': has the unknown type \(number), known are 0 to 12",
          .init(number, [0, 0, 0, 0]), twin: .uint32(0)),
        value(
          "elements of type \(number)", "has the unknown type \(number), known are 0 to 12",
          .array(of: number, count: 1, [0, 0, 0, 0]), twin: .array([.uint32(0)])),
        value(
          "nested elements of type \(number)", "has the unknown type \(number), known are 0 to 12",
          .array([.array(of: number, count: 0, [])]), twin: .array([.array(of: 4, count: 0, [])])),
      ]
    }

  /// Types of elements, and the bytes of one.
  private static let widths: [(type: UInt32, bytes: Int)] = [(4, 4), (10, 8), (0, 1), (8, 8), (9, 12), (7, 1)]
  private static let absurdLengths: [UInt64] = [.max, 1 << 63, 1 << 61, 1 << 40]

  private static func absurdArrays(of type: UInt32, _ width: Int) -> [HostileFile] {
    let element = [UInt8](repeating: 0, count: width)
    return absurdLengths.map { (count: UInt64) -> HostileFile in
      value(
        "\(count) elements of type \(type)", "an array of \(count) bytes or elements, only \(width) bytes remain",
        .array(of: type, count: count, element), twin: .array(of: type, count: 1, element))
    }
  }

  private static let arrays: [HostileFile] =
    widths.flatMap { absurdArrays(of: $0.type, $0.bytes) } + arraysCutShort
    + [9, 64, 5000, 1_000_000].map { (depth: Int) -> HostileFile in
      HostileFile(
        "value: nested \(depth) deep", "metadata 'v': arrays are nested deeper than the 8 levels allowed",
        bytes: { GGUFBuilder([.init("v", .nested(depth))]).bytes },
        twin: { GGUFBuilder([.init("v", .nested(8))]).bytes })
    }

  private static let arraysCutShort: [HostileFile] =
    [
      value(
        "elements that do not fit", "an array of 16 uint64, only 127 bytes remain",
        .array(of: 10, count: 16, [UInt8](repeating: 0, count: 127)),
        twin: .array(of: 10, count: 16, [UInt8](repeating: 0, count: 128))),
      value(
        "strings that do not fit", "ends inside the length of a string",
        .array(of: 8, count: 3, [UInt8](repeating: 0, count: 20)),
        twin: .array(of: 8, count: 3, [UInt8](repeating: 0, count: 24))),
      value(
        "string of 2^64-1 bytes in an array", "a string of 18446744073709551615 bytes or elements",
        .array(of: 8, count: 1, [UInt8](repeating: 255, count: 8)), twin: .strings([""])),
      value("array without a type", "ends inside an array's type", .init(9, [4, 0]), twin: .array([])),
      value("array without a length", "ends inside the length of an array", .init(9, [4, 0, 0, 0]), twin: .array([])),
    ]

  private static let alignmentValues: [(String, GGUFBuilder.Value)] = [
    ("int32 32", .int32(32)), ("uint64 32", .uint64(32)), ("uint8 32", .uint8(32)), ("string", .string("32")),
    ("float32", .float32(32)), ("array", .array([.uint32(32)])),
  ]

  static let alignments: [HostileFile] =
    [UInt32(0), 7, 13, 33, 1 << 21, 1 << 31, .max].map { (alignment: UInt32) -> HostileFile in
      row(
        "alignment \(alignment)",
        "general.alignment is uint32 \(alignment), allowed is a uint32 that is a power of two",
        twin: { $0.set("general.alignment", .uint32(32)) }, change: { $0.set("general.alignment", .uint32(alignment)) })
    }
    + alignmentValues.map { (found: String, value: GGUFBuilder.Value) -> HostileFile in
      row(
        "alignment is \(found)", "general.alignment is \(found), allowed is a uint32",
        twin: { $0.set("general.alignment", .uint32(32)) }, change: { $0.set("general.alignment", value) })
    } + [
      row("alignment twice", "key 'general.alignment' occurs twice") {
        $0.pairs = [.init("general.alignment", .uint32(32)), .init("general.alignment", .uint32(32))]
      },
      row("alignment larger than the file", "data is cut short: 16 bytes at 0", tensor: "a", of: .one) {
        $0.set("general.alignment", .uint32(1 << 20))
      },
      row(
        "alignment that the offsets do not have", "data begins at 32 of the data section, expected 64",
        tensor: "b.weight",
        twin: {
          $0.set("general.alignment", .uint32(64))
          $0.alignment = 64
        }, change: { $0.set("general.alignment", .uint32(64)) }),
    ]
}
