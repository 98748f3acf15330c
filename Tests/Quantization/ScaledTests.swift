import Testing

@testable import Quantization

extension ScaledFormat: CustomTestStringConvertible {
  public var testDescription: String { "\(kind), \(blockRows) by \(blockColumns.map(String.init) ?? "all")" }

  static let all =
    [.fp8Channel, .fp8Block, .mxfp4, .nearestMXFP4, .nvfp4] + groupSizes.compactMap { int4(groupSize: $0) }
}

extension ScaledFormat {
  /// Codes and behind them scales, by the kernels of the instruction set in use, or by the twin; at odd addresses.
  func quantized(
    _ values: Values, columns: Int, globalScale: Float = 1, byReference: Bool = false
  ) throws -> (codes: [UInt8], scales: [UInt8]) {
    let shape = scaleShape(rows: values.count / columns, columns: columns)
    let sizes = [values.count * bits / 8, shape.rows * shape.columns * scaleByteCount(as: values.type)]
    let ranges = [65..<65 + sizes[0], (129 + sizes[0]) | 1..<((129 + sizes[0]) | 1) + sizes[1]]
    var output = [UInt8](repeating: 0xA5, count: ranges[1].upperBound + 64)
    try values.withBytes { bytes in
      try output.withUnsafeMutableBytes { output in
        let rooms = ranges.map { UnsafeMutableRawBufferPointer(rebasing: output[$0]) }
        if byReference {
          return try Reference.quantize(
            bytes, as: values.type, format: self, columns: columns, globalScale: globalScale, codes: rooms[0],
            scales: rooms[1])
        }
        var codes = MutableRawSpan(_unsafeBytes: rooms[0])
        var scales = MutableRawSpan(_unsafeBytes: rooms[1])
        try quantize(
          RawSpan(_unsafeBytes: bytes), as: values.type, columns: columns, globalScale: globalScale, codes: &codes,
          scales: &scales)
      }
    }
    let parts = ranges.map { Array(output[$0]) }
    for range in ranges { output.replaceSubrange(range, with: repeatElement(0xA5, count: range.count)) }
    #expect(output.allSatisfy { $0 == 0xA5 }, "written beyond the output")
    return (parts[0], parts[1])
  }
}

extension KernelTests {
  @Suite struct ScaledKernels {
    /// Sizes that fill blocks and vectors, and such that do not; magnitudes from subnormals to the largest. By the twin
    /// once, and on every instruction set.
    @Test(arguments: ScaledFormat.all)
    func likeTheTwin(_ format: ScaledFormat) throws {
      var random = Random(51)
      let width = format.blockColumns ?? 77
      let sizes = format.bits == 8 ? [(1, 1), (3, 13), (2, 333), (131, width + 9)] : [(1, width), (3, 3 * width)]
      for (rows, columns) in sizes {
        for exponent in rows > 100 ? [-9] : [0, -9, -30, -133, 100] {
          for type in FloatType.allCases {
            let limit = type == .f16 ? 65504 : Double(Float.greatestFiniteMagnitude) / 2
            let values = Values(
              (0..<rows * columns).map { index in
                let value = Double(sign: .plus, exponent: exponent, significand: random.normal())
                return index % 37 == 0 ? -0.0 : min(max(value, -limit), limit)
              }, as: type)
            let largest = values.withBytes {
              ScaledFormat.largestMagnitude(RawSpan(_unsafeBytes: $0), as: type)
            }
            let global = ScaledFormat.globalScale(largest: largest, as: type)
            let expected = try format.quantized(values, columns: columns, globalScale: global, byReference: true)
            for target in Target.all {
              let found = try Target.with(target) {
                try format.quantized(values, columns: columns, globalScale: global)
              }
              #expect(
                found == expected, "\(rows) x \(columns) of \(type), about 2^\(exponent), \(KernelTarget.names[target])"
              )
            }
          }
        }
      }
    }

    /// Halfway between two codes, and right beside that.
    @Test(arguments: Target.all)
    func ties(target: Int) throws {
      let halves = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5, 0.5, 1, 1.5, 2, 3, 4, 6, 0]
      let near = halves.flatMap { [$0, $0 * (1 + 0x1p-7), $0 * (1 - 0x1p-7)] }.flatMap { [$0, -$0] }
      let values = Values(near + Array(repeating: 6, count: 96 - near.count), as: .bf16)
      for format in [ScaledFormat.mxfp4, .nearestMXFP4, .nvfp4] {
        let expected = try format.quantized(values, columns: 96, globalScale: 1, byReference: true)
        let found = try Target.with(target) { try format.quantized(values, columns: 96, globalScale: 1) }
        #expect(found == expected)
      }
    }

    /// What compressed-tensors 0.20.1 makes of one group.
    @Test func byHand() throws {
      let values = Values([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], as: .bf16)
      let nvfp4 = try ScaledFormat.nvfp4.quantized(values, columns: 16, globalScale: 448)
      #expect(nvfp4.codes == [0x10, 0x32, 0x54, 0x76, 0x90, 0xBA, 0xDC, 0xFE] && nvfp4.scales == [0x7E])
      let whole = Values((0..<32).map { $0 < 16 ? Double($0) - 7.5 : 0 }, as: .f32)
      let int4 = try #require(ScaledFormat.int4(groupSize: 32)).quantized(whole, columns: 32)
      #expect(int4.codes.prefix(8) == [0x20, 0x42, 0x64, 0x86, 0xA8, 0xCA, 0xEC, 0xFE])
      #expect(int4.scales == [0, 0, 0x80, 0x3F])
      let fp8 = try ScaledFormat.fp8Channel.quantized(Values([448, -1, 0.0625, -0.0, 0, 2], as: .bf16), columns: 3)
      #expect(fp8.codes == [0x7E, 0xB8, 0x18, 0, 0, 0x7E] && fp8.scales == [0x80, 0x3F, 0x92, 0x3B])
      let zeros = try ScaledFormat.fp8Channel.quantized(Values([0, 0], as: .bf16), columns: 2)
      #expect(zeros.codes == [0, 0] && zeros.scales == [0, 0x3C])
    }

    private static let levels = [0, 0.5, 1, 1.5, 2, 3, 4, 6]

    /// Values of codes of E2M1, the first of two in the low half of a byte, under powers of two.
    private func decoded(_ codes: [UInt8], _ scales: [UInt8]) -> [Double] {
      codes.flatMap { [$0 & 15, $0 >> 4] }.enumerated().map { index, code in
        let level = Self.levels[Int(code & 7)] * (code > 7 ? -1 : 1)
        return Double(sign: .plus, exponent: Int(scales[index / 32]) - 127, significand: 1) * level
      }
    }

    /// Any block of MXFP4 comes back in value, signs of zeros too; and in bytes where its largest code is 4, 3, or 6
    /// beside one that half the scale alone has.
    @Test(arguments: Target.all)
    func nearestIsLossless(target: Int) throws {
      var random = Random(7)
      var same = 0
      for type in [FloatType.bf16, .f32] {
        var (codes, scales): ([UInt8], [UInt8]) = ([], [])
        for block in 0..<506 {
          scales.append(UInt8(block / 2))
          let limit: UInt8 = [8, 8, 7, 6, 4, 2, 1][block % 7]
          let own = (0..<32).map { _ in
            UInt8.random(in: 0..<limit, using: &random) | (Bool.random(using: &random) ? 8 : 0)
          }
          codes += (0..<16).map { own[2 * $0] | own[2 * $0 + 1] << 4 }
        }
        let values = Values(decoded(codes, scales), as: type)
        let found = try Target.with(target) {
          try ScaledFormat.nearestMXFP4.quantized(values, columns: 32 * scales.count)
        }
        #expect(Values(decoded(found.codes, found.scales), as: type).bytes == values.bytes)
        for block in scales.indices {
          let range = block * 16..<(block + 1) * 16
          let own = codes[range].flatMap { [$0 & 7, $0 >> 4 & 7] }
          let largest = own.max()
          guard largest == 5 || largest == 6 || largest == 7 && (own.contains(1) || own.contains(3)) else { continue }
          same += 1
          #expect(found.codes[range] == codes[range] && found.scales[block] == scales[block], "block \(block)")
        }
      }
      #expect(same > 500)
    }

    /// No block comes back worse than under the rule of compressed-tensors, which takes one of the same two scales; all
    /// together come back better.
    @Test func nearestIsNearest() throws {
      var random = Random(8)
      let values = Values((0..<32 * 4000).map { _ in 0.02 * random.normal() }, as: .bf16)
      func errors(_ format: ScaledFormat) throws -> [(error: Double, scale: Double)] {
        let stored = try format.quantized(values, columns: 3200)
        let found = decoded(stored.codes, stored.scales)
        return stored.scales.indices.map { block in
          let error = (block * 32..<(block + 1) * 32).reduce(0) { sum, index in
            sum + (found[index] - values[index]) * (found[index] - values[index])
          }
          return (error, Double(sign: .plus, exponent: Int(stored.scales[block]) - 127, significand: 1))
        }
      }
      let (own, other) = (try errors(.nearestMXFP4), try errors(.mxfp4))
      // An error below 2^-4 of the scale is rounded by 2^-12 of it, so that its square is off by 2^-15; all others of
      // bfloat16 are exact. Of the two scales one is twice the other.
      for (own, other) in zip(own, other) {
        #expect(own.error <= other.error + 2 * 32 * 0x1p-15 * 4 * other.scale * other.scale)
      }
      let sums = [own, other].map { $0.reduce(0) { $0 + $1.error } }
      #expect(sums[0] < 0.995 * sums[1], "\(sums)")
    }

    /// Of two exact scales the lesser where the largest code is 4, and the greater where it would be 6.
    @Test func scaleOfNearest() throws {
      func scale(_ values: [Double]) throws -> UInt8 {
        let padded = Values(values + Array(repeating: 0, count: 32 - values.count), as: .f32)
        return try ScaledFormat.nearestMXFP4.quantized(padded, columns: 32).scales[0]
      }
      #expect(try scale([4, -2]) == 127 && scale([6, 0.5]) == 127 && scale([6, 2]) == 128 && scale([3, 0.5]) == 127)
      // 7.5 is nearer to 8 than to 6; with it go numbers halfway between others, which the greater scale loses.
      #expect(try scale([7.5]) == 128 && scale([6.5]) == 127)
      #expect(try scale([7.5] + Array(repeating: 1.5, count: 20)) == 127)
      #expect(try scale([0]) == 0 && scale([-0x1p-149]) == 0 && scale([0x1.FFFFFEp127]) == 252)
    }

    @Test(arguments: ScaledFormat.all)
    func refused(_ format: ScaledFormat) throws {
      for value in [Double.nan, .infinity, -.infinity] {
        var numbers = Array(repeating: 1.0, count: 2 * 384)
        numbers[500] = value
        for type in FloatType.allCases {
          let error = #expect(throws: NonFinite.self) { try format.quantized(Values(numbers, as: type), columns: 384) }
          #expect(error?.index == 500)
        }
      }
    }

    @Test func globalScale() {
      #expect(ScaledFormat.globalScale(largest: 2, as: .bf16) == 1344)
      // 0.2001953125 times 2688 is 538.125, between 536 and 540.
      #expect(ScaledFormat.globalScale(largest: 5, as: .bf16) == 540)
      #expect(ScaledFormat.globalScale(largest: 21.5, as: .f32) == 2688 * (1 / Float(21.5)))
      #expect(ScaledFormat.globalScale(largest: 0, as: .f32) == 1)
      #expect(ScaledFormat.globalScale(largest: 0.01, as: .f16) == 2688 / Float(0.01))
    }
  }
}
