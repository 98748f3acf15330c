import Bytes
import Tensors
import Testing

@Suite struct ElementTypeTests {
  /// Names and widths in bits, as safetensors 0.8 has them.
  static let table: [(String, Int)] = [
    ("BOOL", 8), ("F4", 4), ("F6_E2M3", 6), ("F6_E3M2", 6), ("U8", 8), ("I8", 8), ("F8_E5M2", 8), ("F8_E4M3", 8),
    ("F8_E8M0", 8),
    ("F8_E4M3FNUZ", 8), ("F8_E5M2FNUZ", 8), ("I16", 16), ("U16", 16), ("F16", 16), ("BF16", 16), ("I32", 32),
    ("U32", 32), ("F32", 32),
    ("C64", 64), ("F64", 64), ("I64", 64), ("U64", 64),
  ]

  @Test(arguments: table)
  func row(_ name: String, _ bits: Int) throws {
    let type = try #require(ElementType(name: name))
    #expect(type.name == name && type.bitWidth == bits && type.alignment == max(1, bits / 8))
    #expect(type.isFloat == ["F16", "BF16", "F32", "F64"].contains(name))
    #expect(ElementType(name: name.lowercased()) == nil)
  }

  @Test func isComplete() {
    #expect(ElementType.allCases.count == Self.table.count)
    for name in ["", "F128", "f32", "F32 ", "FLOAT"] { #expect(ElementType(name: name) == nil) }
  }
}

@Suite struct TensorInfoTests {
  static let half = 1 << 62

  @Test(arguments: [
    ([], ElementType.f32, 1, 4), ([0], .f64, 0, 0), ([3], .u8, 3, 3), ([2, 3], .bf16, 6, 12), ([2, 0, 5], .f32, 0, 0),
    ([4], .f4, 4, 2),
    ([4], .f6e2m3, 4, 3), ([8, 3], .f6e3m2, 24, 18), ([0, 1 << 59], .u8, 0, 0),
    ([1 << 40, 1 << 19], .u8, 1 << 59, 1 << 59),
    ([3, 0], .f4, 0, 0),
  ])
  func counts(_ shape: [Int], _ type: ElementType, _ elements: Int, _ bytes: Int) throws {
    let info = try TensorInfo(name: "t", type: type, shape: shape)
    #expect(info.elementCount == elements && info.byteCount == bytes && info.shape == shape)
  }

  @Test(arguments: [
    ([half, 2], ElementType.u8, "overflows"), ([half, half], .u8, "overflows"), ([1 << 60], .f64, "overflows"),
    ([0, half, half], .u8, "overflows"),
    ([half, half, 0], .u8, "overflows"), ([half, 0, half], .u8, "overflows"),
    ([4_194_305, 4_194_305, 211_106_198_978_564], .f32, "overflows"),
    ([-1], .u8, "negative dimension"), ([2, -1], .u8, "negative dimension"), ([0, -1], .u8, "negative dimension"),
    ([.min], .u8, "negative dimension"),
    ([3], .f4, "is 12 bits, not a whole number of bytes"), ([1], .f6e2m3, "is 6 bits"),
    ([3, 3], .f6e3m2, "is 54 bits"),
  ])
  func refused(_ shape: [Int], _ type: ElementType, _ message: String) throws {
    let failure = try #require(throws: Failure.self) { _ = try TensorInfo(name: "t", type: type, shape: shape) }
    #expect(failure.code == .malformed && failure.tensor == "t" && failure.message.contains(message), "\(failure)")
  }
}

@Suite struct TensorNameTests {
  /// `é` in one scalar and in two: equal as `String`, not as names.
  @Test func bytesDecide() {
    let composed = TensorName("\u{e9}")
    let decomposed = TensorName("e\u{301}")
    #expect(composed.string == decomposed.string)
    #expect(composed != decomposed)
    #expect(Set([composed, decomposed, composed]).count == 2)
    #expect([composed: 1, decomposed: 2][decomposed] == 2)
    #expect(composed.hashValue != decomposed.hashValue)
    #expect(decomposed < composed && !(composed < decomposed))
    #expect(composed.byteCount == 2 && decomposed.byteCount == 3)
  }

  @Test func order() {
    let names: [TensorName] = ["b", "a.10", "a.9", "", "a", "Z", "é", "\u{1F600}", "\u{FFFD}"]
    #expect(names.sorted().map(\.string) == ["", "Z", "a", "a.10", "a.9", "b", "é", "\u{FFFD}", "\u{1F600}"])
  }

  /// A combining mark behind a suffix or prefix does not hide it, and is not cut off with it.
  @Test func affixes() {
    let name: TensorName = "layer.weight"
    #expect(name.hasSuffix(".weight") && name.hasPrefix("layer") && !name.hasSuffix("layer.weight2"))
    #expect(name.dropping(suffix: ".weight") == "layer")
    #expect(name.dropping(suffix: ".bias") == nil)
    #expect(!TensorName("e\u{301}").hasSuffix("\u{e9}"))
    #expect(!TensorName("\u{e9}").hasPrefix("e"))
    #expect(TensorName("e\u{301}").hasPrefix("e"))
    #expect((name + ".absmax").string == "layer.weight.absmax")
    #expect("\(name)" == "layer.weight")
  }
}
