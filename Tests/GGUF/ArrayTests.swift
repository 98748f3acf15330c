import Bytes
import GGUF
import TestSupport
import Testing

/// Arrays stay in the file until they are asked for, and then are what was written.
@Suite struct ArrayTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  private func array(_ value: GGUFBuilder.Value) throws -> GGUFArray {
    let builder = GGUFBuilder([.init("before", .string("x")), .init("v", value), .init("after", .uint8(9))])
    let header = try GGUFHeader(of: InputFile(path: directory.write("m.gguf", builder.bytes)))
    #expect(try header.metadata.integer("after") == 9)
    return try #require(try header.metadata.array("v"))
  }

  @Test func integersOfEveryWidth() throws {
    let rows: [(GGUFBuilder.Value, GGUFValueType, [Int])] = [
      (.array([.uint8(0), .uint8(255)]), .uint8, [0, 255]), (.array([.int8(-128), .int8(127)]), .int8, [-128, 127]),
      (.array([.uint16(.max)]), .uint16, [65535]), (.array([.int16(.min)]), .int16, [-32768]),
      (.array([.uint32(.max)]), .uint32, [4_294_967_295]),
      (.array([.int32(.min), .int32(7)]), .int32, [-2_147_483_648, 7]),
      (.array([.uint64(1 << 63 - 1)]), .uint64, [.max]), (.array([.int64(.min)]), .int64, [.min]),
    ]
    for (value, type, expected) in rows {
      let array = try array(value)
      #expect(array.elementType == type && array.count == expected.count)
      #expect(try array.integers() == expected)
      #expect(try array.values().map(\.integer) == expected.map { $0 })
      #expect(try array.values().allSatisfy { $0.type == type })
      #expect(try array.numbers() == nil && array.byteStrings() == nil)
    }
    #expect(try array(.array([.uint64(1 << 63)])).integers() == nil)
  }

  @Test func numbersAndBools() throws {
    #expect(try array(.array([.float32(0.1), .float32(.infinity)])).numbers() == [Double(Float(0.1)), .infinity])
    let doubles = try array(.array([.float64(0.1), .float64(-0)]))
    #expect(try doubles.numbers() == [0.1, 0] && doubles.integers() == nil)
    let bools = try array(.array([.bool(1), .bool(0)]))
    #expect(try bools.values().map(\.bool) == [true, false])
    #expect(try bools.integers() == nil && bools.numbers() == nil)
  }

  @Test func strings() throws {
    let array = try array(.strings(["", "a", "e\u{301}", String(repeating: "long", count: 100_000)]))
    #expect(array.count == 4 && array.byteCount == 4 * 8 + 1 + 3 + 400_000)
    let strings = try #require(try array.byteStrings())
    #expect(strings.map(\.count) == [0, 1, 3, 400_000] && strings[2] == [0x65, 0xCC, 0x81])
    #expect(try array.values().map(\.text?.utf8.count) == [0, 1, 3, 400_000])
    #expect(try array.integers() == nil && array.numbers() == nil)
  }

  @Test func nested() throws {
    let array = try array(.array([.array([.strings(["a"]), .array([.uint8(7), .uint8(8)])]), .array([])]))
    #expect(array.elementType == .array && array.count == 2)
    let outer = try array.values().compactMap(\.array)
    #expect(outer.map(\.count) == [2, 0] && outer.map(\.elementType) == [.array, .uint8])
    let inner = try outer[0].values().compactMap(\.array)
    #expect(try inner[0].byteStrings() == [[0x61]] && inner[1].integers() == [7, 8])
    var depth = 0
    var level: GGUFArray? = try self.array(.nested(8))
    while let next = level {
      depth += 1
      level = try next.values().first?.array
    }
    #expect(depth == 8)
  }

  /// Only as many elements are decoded as are wanted.
  @Test(.timeLimit(.minutes(1))) func firstElements() throws {
    let small = try array(.strings(["a", "bb", "ccc"]))
    #expect(try small.values(first: 2).map(\.text) == ["a", "bb"])
    #expect(try small.values(first: 9).count == 3 && small.values(first: 0).isEmpty)
    let numbers = try array(.array((0..<1000).map { .uint16($0) }))
    #expect(try numbers.values(first: 3).map(\.integer) == [0, 1, 2])
    #expect(try GGUFArray(int32s: [5, 6, 7]).values(first: 2).map(\.integer) == [5, 6])
    // 1 GiB that takes no room: what is not asked for is not read, which would take minutes.
    let builder = GGUFBuilder([.init("v", .array(of: 0, count: 1 << 30, []))])
    let path = try directory.writeSparse("large.gguf", builder.header, size: builder.header.count + 1 << 30)
    let large = try #require(try GGUFHeader(of: InputFile(path: path)).metadata.array("v"))
    #expect(try large.values(first: 8).count == 8)
  }

  /// What is made in memory is encoded as what is read from a file.
  @Test func madeInMemory() throws {
    let pairs: [(GGUFArray, GGUFBuilder.Value)] = [
      (GGUFArray(strings: ["a", "", "\u{e9}"]), .strings(["a", "", "\u{e9}"])),
      (GGUFArray(byteStrings: [[0xFF], []]), .array([.string([0xFF]), .string("")])),
      (GGUFArray(int32s: [1, -1]), .array([.int32(1), .int32(-1)])),
      (GGUFArray(uint32s: [.max]), .array([.uint32(.max)])),
      (GGUFArray(float32s: [0.5, .nan]), .array([.float32(0.5), .float32(.nan)])),
      (GGUFArray(bools: [true, false]), .array([.bool(1), .bool(0)])),
    ]
    for (made, value) in pairs {
      let read = try array(value)
      #expect(made.elementType == read.elementType && made.count == read.count && made.byteCount == read.byteCount)
      #expect(try made.encodedElements() == read.encodedElements())
    }
  }
}
