import Bytes
import Tensors
import TestSupport
import Testing

@testable import GGUF

/// The table of types, held to ggml's: number, name, values and bytes of a block.
@Suite struct TypeTests {
  static let table: [(number: UInt32, name: String, values: Int, bytes: Int)] = [
    (0, "f32", 1, 4), (1, "f16", 1, 2), (2, "q4_0", 32, 18), (3, "q4_1", 32, 20), (6, "q5_0", 32, 22),
    (7, "q5_1", 32, 24), (8, "q8_0", 32, 34), (9, "q8_1", 32, 36), (10, "q2_K", 256, 84), (11, "q3_K", 256, 110),
    (12, "q4_K", 256, 144), (13, "q5_K", 256, 176), (14, "q6_K", 256, 210), (15, "q8_K", 256, 292),
    (16, "iq2_xxs", 256, 66), (17, "iq2_xs", 256, 74), (18, "iq3_xxs", 256, 98), (19, "iq1_s", 256, 50),
    (20, "iq4_nl", 32, 18), (21, "iq3_s", 256, 110), (22, "iq2_s", 256, 82), (23, "iq4_xs", 256, 136),
    (24, "i8", 1, 1), (25, "i16", 1, 2), (26, "i32", 1, 4), (27, "i64", 1, 8), (28, "f64", 1, 8),
    (29, "iq1_m", 256, 56), (30, "bf16", 1, 2), (34, "tq1_0", 256, 54), (35, "tq2_0", 256, 66), (39, "mxfp4", 32, 17),
    (40, "nvfp4", 64, 36), (41, "q1_0", 128, 18), (42, "q2_0", 64, 18),
  ]

  @Test func everyRow() {
    #expect(GGMLType.allCases.count == Self.table.count)
    for row in Self.table {
      let type = GGMLType(rawValue: row.number)
      #expect(type?.name == row.name && type?.valuesPerBlock == row.values && type?.bytesPerBlock == row.bytes)
      #expect(GGMLType(name: row.name) == type && GGMLType(name: row.name.uppercased()) == type)
      #expect(GGMLType.removedName(row.number) == nil)
    }
    #expect(GGMLType(name: "q4_2") == nil && GGMLType(name: "") == nil)
  }

  /// Every number is a type, was one, or never meant anything.
  @Test func everyNumber() {
    let removed: Set<UInt32> = [4, 5, 31, 32, 33, 36, 37, 38]
    for number in UInt32(0)...300 {
      let isRemoved = removed.contains(number)
      #expect((GGMLType.removedName(number) != nil) == isRemoved)
      if isRemoved { #expect(GGMLType(rawValue: number) == nil) }
    }
  }

  @Test(arguments: GGMLType.allCases) func sizes(_ type: GGMLType) throws {
    let width = type.valuesPerBlock
    let tensor = try GGUFTensor(name: "t", type: type, shape: [3, 2 * width])
    #expect(tensor.elementCount == 6 * width && tensor.byteCount == 6 * type.bytesPerBlock)
    let empty = try GGUFTensor(name: "t", type: type, shape: [0, width])
    #expect(empty.elementCount == 0 && empty.byteCount == 0)
    if width == 1 {
      #expect(try GGUFTensor(name: "t", type: type, shape: []).byteCount == type.bytesPerBlock)
    } else {
      let failure = #expect(throws: Failure.self) { _ = try GGUFTensor(name: "t", type: type, shape: [2, width - 1]) }
      #expect(failure?.message.contains("is not whole blocks of \(width)") == true)
    }
  }

  /// The same file with each type: the reader goes by the table too.
  @Test(arguments: GGMLType.allCases) func inAFile(_ type: GGMLType) throws {
    let directory = try TemporaryDirectory()
    let data = [UInt8](repeating: 1, count: 2 * type.bytesPerBlock)
    var builder = GGUFBuilder.small
    builder.tensors.insert(.init("t", type.rawValue, [UInt64(type.valuesPerBlock), 2], data), at: 1)
    let checkpoint = try GGUFCheckpoint(path: directory.write("m.gguf", builder.bytes))
    #expect(checkpoint.tensors[1].type == type && checkpoint.tensors[1].byteCount == data.count)
    #expect(checkpoint.location(of: 1).offset == checkpoint.files[0].dataStart + 32)
  }

  @Test func shapesThatAreRefused() {
    for (shape, message) in [
      ([1, 1, 1, 1, 1], "has 5 dimensions, allowed are 4"), ([-1], "shape [-1] has a negative dimension"),
      ([.max, 2], "overflows"), ([0, .max, 2], "overflows"), ([.max], "overflows"),
    ] as [([Int], String)] {
      let failure = #expect(throws: Failure.self) { _ = try GGUFTensor(name: "t", type: .f32, shape: shape) }
      #expect(failure?.code == .malformed && failure?.tensor == "t")
      #expect(failure?.message.contains(message) == true, "\(String(describing: failure))")
    }
  }

  @Test func typesOfValues() {
    #expect(GGUFValueType.allCases.map(\.rawValue).sorted() == Array(0...12))
    #expect(GGUFValueType.allCases.map(\.byteCount) == [1, 1, 2, 2, 4, 4, 4, 1, nil, nil, 8, 8, 8])
    #expect(GGUFValueType(rawValue: 13) == nil)
  }
}
