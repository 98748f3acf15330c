import Bytes
import GGUF
import Tensors
import TestSupport
import Testing

/// What a header says is what was written into it.
@Suite struct HeaderTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  private func header(_ builder: GGUFBuilder) throws -> GGUFHeader {
    try GGUFHeader(of: InputFile(path: directory.write("model.gguf", builder.bytes), name: "model.gguf"))
  }

  @Test(arguments: [UInt32(2), 3]) func smallFile(_ version: UInt32) throws {
    var builder = GGUFBuilder.small
    builder.version = version
    let header = try header(builder)
    #expect(header.version == version && header.alignment == 32 && header.warnings.isEmpty)
    #expect(header.dataStart == builder.dataStart)
    #expect(header.tensors.map(\.name) == ["a.weight", "b.weight", "c.bias"])
    #expect(header.tensors.map(\.type) == [.f32, .q8_0, .f16])
    // Row-major: the other way round than in the file.
    #expect(header.tensors.map(\.shape) == [[2, 4], [32], [3]])
    #expect(header.tensors.map(\.elementCount) == [8, 32, 3])
    #expect(header.tensors.map(\.byteCount) == [32, 34, 6])
    let start = header.dataStart
    #expect(
      header.tensors.indices.map(header.range) == [
        start..<start + 32, start + 32..<start + 66, start + 96..<start + 102,
      ])
    #expect(header.index(of: "c.bias") == 2 && header.index(of: "c") == nil)
    #expect(
      header.metadata.pairs.map(\.key) == [
        "general.architecture", "test.block_count", "test.epsilon", "test.flag", "test.names", "test.widths",
      ])
  }

  @Test func isGGUF() throws {
    for (magic, expected) in [("GGUF", true), ("FUGG", true), ("GGML", false), ("gguf", false), ("GGU", false)] {
      let path = try directory.write("m", Array(magic.utf8))
      #expect(try GGUFHeader.isGGUF(InputFile(path: path)) == expected)
    }
    #expect(try GGUFHeader.isGGUF(InputFile(path: directory.write("m", []))) == false)
  }

  /// Each type at its edges, read back as the type it has.
  @Test func valuesOfEveryType() throws {
    let header = try header(
      GGUFBuilder([
        .init("u8", .uint8(255)), .init("i8", .int8(-128)), .init("u16", .uint16(65535)), .init("i16", .int16(-32768)),
        .init("u32", .uint32(.max)), .init("i32", .int32(.min)), .init("u64", .uint64(.max)),
        .init("i64", .int64(.min)),
        .init("f32", .float32(.leastNonzeroMagnitude)), .init("f64", .float64(.greatestFiniteMagnitude)),
        .init("nan", .float32(.nan)), .init("yes", .bool(1)), .init("no", .bool(0)), .init("text", .string("e\u{301}")),
        .init("raw", .string([0xFF, 0])),
      ]))
    let metadata = header.metadata
    #expect(
      metadata.pairs.map(\.value.type) == [
        .uint8, .int8, .uint16, .int16, .uint32, .int32, .uint64, .int64, .float32, .float64, .float32, .bool, .bool,
        .string, .string,
      ])
    #expect(try metadata.integer("u8") == 255 && metadata.integer("i8") == -128)
    #expect(try metadata.integer("u16") == 65535 && metadata.integer("i16") == -32768)
    #expect(try metadata.integer("u32") == 4_294_967_295 && metadata.integer("i32") == -2_147_483_648)
    #expect(try metadata.integer("i64") == .min)
    #expect(try metadata.number("f32") == Double(Float.leastNonzeroMagnitude))
    #expect(try metadata.number("f64") == .greatestFiniteMagnitude)
    #expect(try metadata.number("nan")?.isNaN == true)
    #expect(try metadata.bool("yes") == true && metadata.bool("no") == false)
    #expect(try metadata.text("text").map { Array($0.utf8) } == Array("e\u{301}".utf8))
    guard case .string(let raw) = metadata["raw"] else { throw Failure(.internal, "no string") }
    #expect(raw == [0xFF, 0])
    if case .uint64(let value) = metadata["u64"] { #expect(value == .max) } else { Issue.record("not uint64") }
    #expect(metadata["absent"] == nil)
    #expect(try metadata.integer("absent") == nil && metadata.array("absent") == nil)
  }

  /// A value of another type is an error that names key and types, never another reading of the same bytes.
  @Test func typedReads() throws {
    let metadata = try header(
      GGUFBuilder([
        .init("text", .string("7")), .init("number", .float32(7)), .init("count", .uint32(7)), .init("flag", .bool(1)),
        .init("raw", .string([0xFF])), .init("huge", .uint64(.max)), .init("esc\u{1b}", .int8(1)),
        .init("bytes", .array([.int8(1), .int8(2), .int8(3), .int8(4)])), .init("flags", .array([.bool(1)])),
        .init("texts", .strings(["1"])), .init("floats", .array([.float64(1)])),
      ])
    ).metadata
    func message(_ body: () throws -> Any?) throws -> String {
      let failure = try #require(throws: Failure.self) { _ = try body() }
      #expect(failure.code == .malformed)
      return failure.message
    }
    #expect(try message { try metadata.integer("text") } == "metadata 'text': found string, expected a whole number")
    #expect(
      try message { try metadata.integer("number") } == "metadata 'number': found float32, expected a whole number")
    #expect(try message { try metadata.integer("flag") } == "metadata 'flag': found bool, expected a whole number")
    #expect(try message { try metadata.integer("huge") } == "metadata 'huge': found uint64, expected a whole number")
    #expect(try message { try metadata.integer("texts") }.hasSuffix("found array, expected a whole number"))
    #expect(try message { try metadata.number("count") }.hasSuffix("found uint32, expected a floating-point number"))
    #expect(try message { try metadata.bool("count") }.hasSuffix("found uint32, expected a bool"))
    #expect(try message { try metadata.text("count") }.hasSuffix("found uint32, expected a UTF-8 string"))
    #expect(try message { try metadata.text("raw") }.hasSuffix("found string, expected a UTF-8 string"))
    #expect(try message { try metadata.array("count") }.hasSuffix("found uint32, expected an array"))
    #expect(try message { try metadata.text("esc\u{1b}") }.hasPrefix("metadata 'esc\\u{1b}'"))
    // The right count of another width.
    #expect(
      try message { try metadata.numbers("bytes") }
        == "metadata 'bytes': found an array of int8, expected floating-point numbers")
    #expect(try message { try metadata.integers("floats") }.hasSuffix("an array of float64, expected whole numbers"))
    #expect(try message { try metadata.integers("flags") }.hasSuffix("an array of bool, expected whole numbers"))
    #expect(try message { try metadata.integers("texts") }.hasSuffix("an array of string, expected whole numbers"))
    #expect(try message { try metadata.byteStrings("bytes") }.hasSuffix("an array of int8, expected strings"))
    #expect(try metadata.integers("bytes") == [1, 2, 3, 4] && metadata.numbers("floats") == [1])
  }

  /// Keys are bytes.
  @Test func keysThatOnlyLookEqual() throws {
    let metadata = try header(
      GGUFBuilder([.init("\u{e9}", .uint8(1)), .init("e\u{301}", .uint8(2))])
    ).metadata
    #expect(try metadata.integer("\u{e9}") == 1 && metadata.integer("e\u{301}") == 2)
  }

  @Test func metadataAsADictionary() throws {
    var metadata = GGUFMetadata([("a", .uint32(1)), ("b", .uint32(2)), ("c", .uint32(3))])
    metadata["b"] = .text("two")
    #expect(metadata.pairs.map(\.key) == ["a", "b", "c"])
    metadata["a"] = nil
    metadata["x"] = nil
    #expect(metadata.pairs.map(\.key) == ["b", "c"])
    #expect(try metadata.text("b") == "two" && metadata.integer("c") == 3 && metadata.integer("a") == nil)
    metadata["a"] = .bool(true)
    #expect(metadata.pairs.map(\.key) == ["b", "c", "a"])
  }
}
