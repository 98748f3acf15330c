import Testing

@testable import Quantization

extension KernelTests {
  @Suite struct Dequantize {
    func dequantize(
      _ codes: [UInt8], _ absmax: [Float], _ elements: Range<Int>, as type: FloatType, _ format: FourBitFormat,
      byReference: Bool
    ) -> [UInt8] {
      var output = [UInt8](repeating: 0xA5, count: elements.count * type.byteCount + 64)
      codes.withUnsafeBytes { codes in
        absmax.withUnsafeBufferPointer { absmax in
          output.withUnsafeMutableBytes { output in
            if byReference {
              Reference.dequantize(
                codes: codes, absmax: absmax, elements: elements, into: output, as: type, format: format)
            } else {
              format.dequantize(codes: codes, absmax: absmax, elements: elements, into: output, as: type)
            }
          }
        }
      }
      return output
    }

    @Test(arguments: QuantizeCase.all)
    func ranges(_ c: QuantizeCase) throws {
      var random = Random(6)
      for blockSize in [32, 64, 4096] {
        let format = try #require(FourBitFormat(code: c.code, blockSize: blockSize))
        let count = blockSize * 3 + 21
        let codes = (0..<format.packedByteCount(count)).map { _ in UInt8.random(in: 0...255, using: &random) }
        // Ordinary, subnormal in 16 bits, overflowing, and what a damaged file may hold.
        let absmax: [[Float]] = [
          [0.03, 1.7, -0.25, 0], [3e-6, 0x1p-133, 6e-8, 2e-38], [7e4, 3.4e38, 65520, 65519],
          [.nan, .infinity, -.infinity, 1],
        ]
        for absmax in absmax {
          for elements in [
            0..<count, 0..<1, 1..<2, 5..<5, count - 1..<count, 3..<count - 2, blockSize - 1..<2 * blockSize + 1,
          ] {
            let expected = dequantize(codes, absmax, elements, as: c.type, format, byReference: true)
            let found = Target.with(c.target) {
              dequantize(codes, absmax, elements, as: c.type, format, byReference: false)
            }
            if found != expected {
              let worst = zip(found, expected).enumerated().first { $1.0 != $1.1 }?.offset ?? 0
              let range = worst / 32 * 32..<min(worst / 32 * 32 + 32, found.count)
              Issue.record(
                "block size \(blockSize), elements \(elements), absmax \(absmax), from byte \(range.lowerBound): got \(found[range].hex); expected \(expected[range].hex)"
              )
            }
          }
        }
      }
    }
  }
}
