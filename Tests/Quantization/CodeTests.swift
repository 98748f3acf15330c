import Testing

@testable import Quantization

struct CodeCase: Sendable, CustomTestStringConvertible {
  var target: Int
  var type: CodeType
  var testDescription: String { "\(type) on \(KernelTarget.names[target])" }

  static let types: [CodeType] =
    [.e4m3, .e5m2, .e2m1, .e8m0, .int8] + (1...8).flatMap { [.unsigned(bits: $0), .offset(bits: $0)] }
  static let all = Target.all.flatMap { target in types.map { CodeCase(target: target, type: $0) } }
}

extension CodeType {
  /// By the kernels of the instruction set in use, or by the twin; read from and written to odd addresses.
  func dequantized(
    _ codes: [UInt8], scales: [Float], zeros: [Float] = [], groupSize: Int, lead: Int = 0, count: Int,
    as type: FloatType, byReference: Bool = false
  ) -> Values {
    var output = [UInt8](repeating: 0xA5, count: 1 + count * type.byteCount + 64)
    let input = [0] + codes
    output.withUnsafeMutableBytes { output in
      let room = UnsafeMutableRawBufferPointer(rebasing: output[1..<1 + count * type.byteCount])
      input.withUnsafeBytes { input in
        let codes = UnsafeRawBufferPointer(rebasing: input[1...])
        if byReference {
          return Reference.dequantize(
            codes, type: self, scales: scales, zeros: zeros, groupSize: groupSize, lead: lead, into: room, as: type)
        }
        var values = MutableRawSpan(_unsafeBytes: room)
        dequantize(
          RawSpan(_unsafeBytes: codes), scales: scales.span, zeros: zeros.span, groupSize: groupSize, lead: lead,
          into: &values, as: type)
      }
    }
    let end = 1 + count * type.byteCount
    #expect(output[0] == 0xA5 && output[end...].allSatisfy { $0 == 0xA5 }, "written beyond the output")
    return Values(bytes: Array(output[1..<end]), as: type)
  }
}

extension KernelTests {
  @Suite struct CodeKernels {
    /// Any bytes, in groups of any size that begin before the first code or with it, and more of them than are unpacked
    /// together.
    @Test(arguments: CodeCase.all)
    func likeTheTwin(_ c: CodeCase) throws {
      var random = Random(31)
      for (count, groupSize, lead) in [
        (0, 1, 0), (1, 1, 0), (77, 1, 0), (15, 7, 3), (33, 16, 0), (2048 + 13, 128, 100), (100, 32, 31),
        (64, 1 << 40, 5),
      ] {
        let codes = random.bytes(c.type.byteCount(count))
        let groups = (lead + max(1, count) - 1) / groupSize + 1
        let scales = (0..<groups).map { $0 == 3 ? Float.infinity : $0 == 5 ? .nan : Float(random.normal()) }
        let zeros = (0..<groups).map { _ in Float(Int.random(in: 0...255, using: &random)) }
        for subtracted in [[], zeros] {
          for type in FloatType.allCases {
            let expected = c.type.dequantized(
              codes, scales: scales, zeros: subtracted, groupSize: groupSize, lead: lead, count: count, as: type,
              byReference: true)
            let found = Target.with(c.target) {
              c.type.dequantized(
                codes, scales: scales, zeros: subtracted, groupSize: groupSize, lead: lead, count: count, as: type)
            }
            if let difference = found.firstDifference(from: expected) {
              Issue.record("\(count) codes as \(type), groups of \(groupSize) from \(lead): \(difference)")
            }
          }
        }
      }
    }

    /// Products that are subnormal or beyond what 16 bits hold.
    @Test(arguments: Target.all)
    func extremes(target: Int) throws {
      let codes = (0...255).map { UInt8($0) }
      for exponent in [-149, -140, -126, -24, -14, 14, 100, 127] {
        let scales = [Float(sign: .plus, exponent: exponent, significand: 1)]
        for type in FloatType.allCases {
          for code in [CodeType.e4m3, .e5m2, .e8m0, .int8] {
            let expected = code.dequantized(
              codes, scales: scales, groupSize: 256, count: 256, as: type, byReference: true)
            let found = Target.with(target) {
              code.dequantized(codes, scales: scales, groupSize: 256, count: 256, as: type)
            }
            let difference = found.firstDifference(from: expected)
            #expect(difference == nil, "\(code) by 2^\(exponent) as \(type)")
          }
        }
      }
    }
  }
}

@Suite struct CodeTypeTests {
  private func values(_ type: CodeType, _ codes: [UInt8]) -> [Double] {
    let count = codes.count * 8 / type.bits
    let found = type.dequantized(codes, scales: [1], groupSize: count, count: count, as: .f32)
    return (0..<count).map { found[$0] }
  }

  /// By the definitions of OCP: the least, the greatest, and those where something begins.
  @Test func numbers() {
    #expect(
      values(.e4m3, [0x00, 0x01, 0x07, 0x08, 0x38, 0x7E, 0x80, 0xC4])
        == [0, 0x1p-9, 0x7p-9, 0x1p-6, 1, 448, -0.0, -3])
    #expect(values(.e4m3, [0x7F, 0xFF]).allSatisfy { $0.isNaN })
    #expect(values(.e4m3, [0x80])[0].sign == .minus)
    #expect(
      values(.e5m2, [0x01, 0x04, 0x3C, 0x7B, 0x7C, 0xFC]) == [0x1p-16, 0x1p-14, 1, 57344, .infinity, -.infinity])
    #expect(values(.e5m2, [0x7D, 0x7E, 0xFF]).allSatisfy { $0.isNaN })
    #expect(values(.e8m0, [0, 1, 127, 254]) == [0x1p-127, 0x1p-126, 1, 0x1p127])
    #expect(values(.e8m0, [255])[0].isNaN)
    #expect(values(.int8, [0x80, 0xFF, 0x00, 0x7F]) == [-128, -1, 0, 127])
  }

  /// The worked examples of compressed-tensors: an even code is low, and -8 is stored as 0.
  @Test func packing() {
    let bytes: [UInt8] = [0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE]
    let levels: [Double] = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    #expect(values(.e2m1, bytes) == levels + levels.map { -$0 })
    #expect(values(.offset(bits: 4), bytes) == (-8...7).map(Double.init))
    #expect(values(.unsigned(bits: 4), bytes) == (0...15).map(Double.init))
    #expect(values(.offset(bits: 3), [0x88, 0xC6, 0xFA]) == (-4...3).map(Double.init))
    #expect(values(.offset(bits: 8), [0x00, 0x7F, 0x80, 0xFF]) == [-128, -1, 0, 127])
    #expect(values(.unsigned(bits: 1), [0b1010_0001]) == [1, 0, 0, 0, 0, 1, 0, 1])
  }

  @Test func byteCounts() {
    #expect(CodeType.e4m3.byteCount(13) == 13)
    #expect(CodeType.e2m1.byteCount(13) == 7)
    #expect(CodeType.unsigned(bits: 3).byteCount(9) == 4)
    #expect(CodeType.unsigned(bits: 7).byteCount(16) == 14)
  }
}
