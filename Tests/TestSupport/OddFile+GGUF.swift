extension OddFile {
  /// GGUF files that look strange and are valid.
  public static let gguf: [OddFile] =
    [
      odd("nothing", tensors: [], of: GGUFBuilder()) { _ in },
      odd("version 2") { $0.version = 2 },
      odd("no padding after the last tensor") { $0.isPadded = false },
      odd("a megabyte after the last tensor", warning: "1048576 bytes after the last tensor are ignored") {
        $0.tail = [UInt8](repeating: 0x6A, count: 1 << 20)
      },
      odd("a ZIP after the last tensor", warning: "30 bytes after the last tensor are ignored") {
        $0.tail = Array("PK".utf8) + [3, 4] + [UInt8](repeating: 0, count: 26)
      },
      odd("key of one space") { $0.pairs.append(.init(" ", .uint8(0))) },
      odd("key with capitals, hyphens and escapes") { $0.pairs.append(.init("A-b.\u{1b}[31m\u{202e}", .uint8(0))) },
      odd("keys that differ in normalization only") {
        $0.pairs += [.init("\u{e9}", .uint8(0)), .init("e\u{301}", .uint8(0))]
      },
      odd("string that is not UTF-8") { $0.pairs.append(.init("v", .string([0xFF, 0xFE]))) },
      odd("string with a NUL") { $0.pairs.append(.init("v", .string("a\0b"))) },
      odd("arrays eight deep") { $0.pairs.append(.init("v", .nested(8))) },
      odd("array of arrays of strings") {
        $0.pairs.append(.init("v", .array([.strings(["a", "b"]), .strings([]), .array([.uint8(1)])])))
      },
      odd("empty arrays of every type") {
        for type in UInt32(0)...12 { $0.pairs.append(.init("v\(type)", .array(of: type, count: 0, []))) }
      },
      odd("a million bytes of text") {
        $0.pairs.append(.init("v", .string(String(repeating: "0123456789", count: 100_000))))
      },
      odd("strings across the edges of what is read at once") {
        $0.pairs += (1..<9).map { .init("v\($0)", .string([UInt8](repeating: 0x76, count: 1 << 15 * $0 / 4 + $0))) }
      },
      odd("50 000 empty strings") {
        $0.pairs.append(.init("v", .array(of: 8, count: 50_000, [UInt8](repeating: 0, count: 400_000))))
      },
      odd("tensor without a name", tensors: ["", "b.weight", "c.bias"]) { $0.tensors[0].name = [] },
      odd("tensor names like paths", tensors: ["../../x", "/etc/passwd", "c.bias"]) {
        $0.tensors[0].name = Array("../../x".utf8)
        $0.tensors[1].name = Array("/etc/passwd".utf8)
      },
      odd("tensor name with escapes", tensors: ["\u{1b}[31m\u{202e}\n", "b.weight", "c.bias"]) {
        $0.tensors[0].name = Array("\u{1b}[31m\u{202e}\n".utf8)
      },
      odd("tensor name of 64 bytes", tensors: [String(repeating: "n", count: 64), "b.weight", "c.bias"]) {
        $0.tensors[0].name = [UInt8](repeating: 0x6E, count: 64)
      },
      odd("names that differ in normalization only", tensors: ["\u{e9}", "e\u{301}", "c.bias"]) {
        $0.tensors[0].name = Array("\u{e9}".utf8)
        $0.tensors[1].name = Array("e\u{301}".utf8)
      },
      odd("scalar", tensors: ["a", "b"], of: .named) {
        $0.tensors.append(.init("b", 0, [], [0, 0, 0x80, 0x3F]))
      },
      odd("empty tensors before, between and after", tensors: ["x", "a", "y", "b", "z"], of: .named) {
        $0.tensors.insert(.init("x", 8, [32, 0], []), at: 0)
        $0.tensors += [
          .init("y", 2, [0], []), .init("b", 24, [1], [1]), .init("z", 0, [1 << 30, 0, 1 << 20], []),
        ]
      },
    ]
    + [1, 8, 16, 64, 4096, 1 << 20].map { alignment in
      odd("alignment \(alignment)") {
        $0.set("general.alignment", .uint32(UInt32(alignment)))
        $0.alignment = alignment
      }
    }
    + (0..<4).map { position in
      odd("dimension \(position) is 0", tensors: ["a", "b"], of: .named) {
        var dimensions: [UInt64] = [2, 3, 4, 5]
        dimensions[position] = 0
        $0.tensors.append(.init("b", 0, dimensions, []))
      }
    }

  private static func odd(
    _ name: String, tensors: [String] = ["a.weight", "b.weight", "c.bias"], warning: String? = nil,
    of base: GGUFBuilder = .small, _ change: @escaping @Sendable (inout GGUFBuilder) -> Void
  ) -> OddFile {
    OddFile(name, tensors: tensors, warning: warning) {
      var builder = base
      change(&builder)
      return builder.bytes
    }
  }
}

extension GGUFBuilder {
  /// One tensor of a model of some architecture.
  fileprivate static var named: GGUFBuilder {
    var builder = GGUFBuilder.one
    builder.pairs.append(.init("general.architecture", .string("test")))
    return builder
  }
}
