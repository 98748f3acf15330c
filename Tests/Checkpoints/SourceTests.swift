import Bytes
import Commands
import Foundation
import Quantization
import Safetensors
import Tensors
import TestSupport
import Testing

@testable import Checkpoints

/// Sources around sources: the same bytes, whatever pieces they are read in.
@Suite struct SourceTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  /// Reads a tensor in pieces of every kind and compares with the whole.
  private func expectPieces(
    _ source: any TensorSource, _ index: Int, _ whole: [UInt8], sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    #expect(try source.bytes(index) == whole, sourceLocation: sourceLocation)
    let width = source.tensors[index].type.bitWidth / 8
    var generator = SplitMix64(seed: 5)
    for _ in 0..<40 {
      let count = whole.count / width
      let start = Int.random(in: 0...count, using: &generator)
      let end = Int.random(in: start...count, using: &generator)
      let range = start * width..<end * width
      #expect(try source.bytes(index, range) == Array(whole[range]), "\(range)", sourceLocation: sourceLocation)
    }
  }

  // MARK: - Transposed

  @Test(arguments: [("BF16", 2), ("F32", 4), ("F64", 8)], [[1, 1], [1, 7], [7, 1], [3, 5], [64, 48], [33, 129]])
  func transposed(_ type: (name: String, width: Int), _ shape: [Int]) throws {
    let count = shape[0] * shape[1]
    let data = (0..<count * type.width).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) }
    let base = try MemorySource([.init("other", "U8", [2], [1, 2]), .init("w", type.name, shape, data)])
    let source = try TransposedSource(base, [1])
    #expect(source.tensors[1].shape == [shape[1], shape[0]])
    var expected: [UInt8] = []
    for column in 0..<shape[1] {
      for row in 0..<shape[0] {
        let start = (row * shape[1] + column) * type.width
        expected += data[start..<start + type.width]
      }
    }
    try expectPieces(source, 1, expected)
    #expect(try source.bytes(0) == [1, 2])
  }

  /// Of a stack each matrix, whether a piece lies in one, is one or has parts of several.
  @Test(arguments: [("BF16", 2), ("F32", 4), ("F64", 8)], [[1, 1, 1], [3, 5, 7], [2, 2, 33, 65], [2, 401, 307]])
  func transposedStack(_ type: (name: String, width: Int), _ shape: [Int]) throws {
    let count = shape.reduce(1, *)
    let data = (0..<count * type.width).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) }
    let base = try MemorySource([.init("w", type.name, shape, data)])
    let source = try TransposedSource(base, [0])
    let (rows, columns) = (shape[shape.count - 2], shape[shape.count - 1])
    #expect(source.tensors[0].shape == shape.dropLast(2) + [columns, rows])
    var expected: [UInt8] = []
    for matrix in 0..<count / (rows * columns) {
      for column in 0..<columns {
        for row in 0..<rows {
          let start = ((matrix * rows + row) * columns + column) * type.width
          expected += data[start..<start + type.width]
        }
      }
    }
    try expectPieces(source, 0, expected)
    let matrix = rows * columns * type.width
    #expect(try source.bytes(0, expected.count - matrix..<expected.count) == Array(expected.suffix(matrix)))
  }

  // MARK: - Converted

  @Test func converted() throws {
    let values: [Float] = [0, -0.0, 1, -1.5, 65504, -65504, 1e-8, .infinity, -.infinity, 3.140625]
    let base = try MemorySource([
      .init("w", "F32", [10], TestModel.bytes(of: values, as: "F32")), .init("i", "I32", [1], [1, 0, 0, 0]),
    ])
    let source = try ConvertedSource(base, [0: .f16])
    #expect(source.tensors[0].type == .f16 && source.tensors[1].type == .i32)
    try expectPieces(source, 0, TestModel.bytes(of: values, as: "F16"))
    #expect(try source.bytes(1) == [1, 0, 0, 0])
    let refused = try #require(throws: Failure.self) { _ = try ConvertedSource(base, [1: .f16]) }
    #expect(refused.code == .unsupported && refused.tensor == "i")
  }

  @Test(arguments: ["F32", "F64", "BF16"])
  func overflow(_ type: String) throws {
    var values = [Float](repeating: 1, count: 1000)
    values[700] = type == "BF16" ? -65536 : -65520
    let base = try MemorySource([.init("w", type, [1000], TestModel.bytes(of: values, as: type))])
    let source = try ConvertedSource(base, [0: .f16])
    for start in [0, 1000, 1400] {
      let failure = try #require(throws: Failure.self) { _ = try source.bytes(0, start..<2000) }
      #expect(failure.code == .malformed && failure.tensor == "w")
      #expect(
        failure.message.hasPrefix("element 700 is ") && failure.message.hasSuffix("beyond the range of float16"),
        "\(failure)")
    }
    _ = try source.bytes(0, 0..<1400)
    _ = try source.bytes(0, 1402..<2000)
  }

  // MARK: - Dequantized

  @Test(arguments: ["BF16", "F16", "F32"], [true, false])
  func dequantized(_ type: String, _ nested: Bool) throws {
    // More than 256 blocks, and a last one that is not full.
    let model = TestModel([
      TestModel.tensor("a.x_proj.weight", type, [131, 301], seed: 3),
      TestModel.tensor("a.norm.weight", type, [7], seed: 4),
    ])
    let path = try model.write(to: directory)
    for (blockSize, code) in [(32, Quantize.Code.nf4), (64, .fp4), (4096, .nf4)] {
      var quantize = Quantize()
      quantize.code = code
      quantize.blockSize = blockSize
      quantize.usesDoubleQuantization = nested
      quantize.run.progress = .silent
      quantize.run.force = true
      _ = try quantize(path, output: directory.path("out")) { _ in }
      let checkpoint = try StoredSafetensors(path: directory.path("out"))
      let source = DequantizedSource(try LogicalTensors(checkpoint))
      let index = try #require(source.tensors.firstIndex { $0.name == "a.x_proj.weight" })
      #expect(source.tensors[index].shape == [131, 301] && source.tensors[index].type.name == type)
      let whole = try source.bytes(index)
      try expectPieces(source, index, whole)
      // Near the values that were quantized.
      let original = Self.floats(model.tensors[0].data, type)
      let error =
        zip(original, Self.floats(whole, type)).map { ($0 - $1) * ($0 - $1) }.reduce(0, +) / Float(original.count)
      #expect(error < (blockSize == 4096 ? 0.02 : 0.015) && error > 0.0001, "\(error)")
      let plain = try #require(source.tensors.firstIndex { $0.name == "a.norm.weight" })
      #expect(try source.bytes(plain) == model.tensors[1].data)
    }
  }

  private static func floats(_ bytes: [UInt8], _ type: String) -> [Float] {
    let width = type == "F32" ? 4 : 2
    return stride(from: 0, to: bytes.count, by: width).map { start in
      let bits = (0..<width).reduce(UInt32(0)) { $0 | UInt32(bytes[start + $1]) << (8 * UInt32($1)) }
      switch type {
      case "BF16": return Float(bitPattern: bits << 16)
      case "F16": return Float(Float16(bitPattern: UInt16(bits)))
      default: return Float(bitPattern: bits)
      }
    }
  }

  // MARK: - There and back

  /// Quantized, dequantized and quantized again, the codes are the same.
  @Test func requantization() throws {
    let path = try TestModel(layers: 2, width: 96, type: "F32").write(to: directory)
    var quantize = Quantize()
    quantize.run.progress = .silent
    quantize.usesDoubleQuantization = false
    _ = try quantize(path, output: directory.path("one")) { _ in }
    var convert = Convert()
    convert.run.progress = .silent
    _ = try convert(directory.path("one"), output: directory.path("back")) { _ in }
    _ = try quantize(directory.path("back"), output: directory.path("two")) { _ in }
    quantize.forcesRequantization = true
    _ = try quantize(directory.path("one"), output: directory.path("three")) { _ in }
    let one = try directory.read("one/model.safetensors")
    #expect(try directory.read("two/model.safetensors") == one)
    #expect(try directory.read("three/model.safetensors") == one)
    // The configuration is the source's again.
    let config = String(decoding: try directory.read("back/config.json"), as: UTF8.self)
    #expect(!config.contains("quantization_config") && config.contains("TestForCausalLM"))
  }
}
