import Bytes
import Quantization
import Tensors
import TestSupport
import Testing

@testable import Writing

/// The tensors that take the place of a weight.
@Suite struct FourBitSchemeTests {
  static let shapes = [
    [1, 1], [1, 63], [64, 64], [65, 1], [7, 9], [4096, 4096], [11008, 4096], [5120, 13824], [3, 100_003],
    [1 << 16, 1 << 15],
  ]

  struct Options: Sendable, CustomTestStringConvertible {
    var code: FourBitCode
    var blockSize: Int
    var nested: Bool
    var testDescription: String { "\(code) \(blockSize) \(nested ? "nested" : "plain")" }
  }

  static let options = FourBitCode.allCases.flatMap { code in
    [32, 64, 4096].flatMap { size in [false, true].map { Options(code: code, blockSize: size, nested: $0) } }
  }

  private func scheme(_ options: Options, storage: ElementType = .u8) throws -> FourBitScheme {
    FourBitScheme(
      format: try #require(FourBitFormat(code: options.code, blockSize: options.blockSize)),
      usesDoubleQuantization: options.nested, storage: storage)
  }

  @Test(arguments: options, shapes)
  func layout(_ options: Options, _ shape: [Int]) throws {
    let scheme = try scheme(options)
    let weight = try TensorInfo(name: "m.weight", type: .bf16, shape: shape)
    let outputs = try scheme.outputs(for: weight, type: .bf16)
    let count = weight.elementCount
    let blocks = (count + options.blockSize - 1) / options.blockSize
    let named = Dictionary(uniqueKeysWithValues: outputs.map { ($0.name.string, $0) })
    let state = "m.weight.quant_state.bitsandbytes__\(options.code == .nf4 ? "nf4" : "fp4")"
    #expect(named["m.weight"]?.type == .u8 && named["m.weight"]?.shape == [(count + 1) / 2, 1])
    #expect(named["m.weight.quant_map"]?.type == .f32 && named["m.weight.quant_map"]?.shape == [16])
    #expect(named[state]?.type == .u8 && named[state]?.shape.count == 1)
    if options.nested {
      #expect(outputs.count == 6)
      #expect(named["m.weight.absmax"]?.type == .u8 && named["m.weight.absmax"]?.shape == [blocks])
      #expect(
        named["m.weight.nested_absmax"]?.type == .f32
          && named["m.weight.nested_absmax"]?.shape == [(blocks + 255) / 256])
      #expect(named["m.weight.nested_quant_map"]?.type == .f32 && named["m.weight.nested_quant_map"]?.shape == [256])
    } else {
      #expect(outputs.count == 4)
      #expect(named["m.weight.absmax"]?.type == .f32 && named["m.weight.absmax"]?.shape == [blocks])
    }
    // All together fill whole multiples of 64, and every part is aligned to its elements.
    var offset = 0
    for output in outputs {
      #expect(offset % output.type.alignment == 0, "\(output.name) at \(offset)")
      offset += output.byteCount
    }
    #expect(offset % 64 == 0)
    #expect(try scheme.byteCount(for: weight, type: .bf16) == offset)
    #expect(outputs.first?.name == "m.weight")
    // The JSON fits, whatever the offset, and wastes less than 64 bytes.
    let natural = scheme.state(of: weight, type: .bf16).reservedByteCount
    let room = try #require(named[state]).byteCount
    #expect(room >= natural && room < natural + 64)
  }

  /// The packed bytes under another dtype are the same bytes.
  @Test(arguments: [(ElementType.u8, 1), (.bf16, 2), (.f16, 2), (.f32, 4)])
  func storage(_ type: ElementType, _ width: Int) throws {
    let scheme = try scheme(Options(code: .nf4, blockSize: 64, nested: true), storage: type)
    let weight = try TensorInfo(name: "m.weight", type: .bf16, shape: [64, 48])
    let outputs = try scheme.outputs(for: weight, type: .bf16)
    #expect(outputs[0].type == type && outputs[0].shape == [64 * 48 / 2 / width, 1])
    // Bytes that fill no whole element of that dtype.
    let odd = try TensorInfo(name: "m.weight", type: .bf16, shape: [1, 2 * width - 1 + 2])
    if width > 1 {
      let failure = try #require(throws: Failure.self) { _ = try scheme.outputs(for: odd, type: .bf16) }
      #expect(failure.code == .unsupported && failure.tensor == "m.weight")
    } else {
      #expect(try scheme.outputs(for: odd, type: .bf16).count == 6)
    }
  }
}
