import Testing

@testable import Quantization

struct QuantizeCase: Sendable, CustomTestStringConvertible {
  var target: Int
  var code: FourBitCode
  var type: FloatType
  var testDescription: String { "\(code.rawValue) from \(type.rawValue) on \(KernelTarget.names[target])" }

  static let all = Target.all.flatMap { target in
    FourBitCode.allCases.flatMap { code in
      FloatType.allCases.map { QuantizeCase(target: target, code: code, type: $0) }
    }
  }
}

extension KernelTests {
  @Suite struct Quantize {
    func check(
      _ values: Values, _ format: FourBitFormat, target: Int, _ location: SourceLocation = #_sourceLocation
    ) throws {
      let expected = try Quantized(values, format, by: Quantized.reference)
      let found = try Target.with(target) { try Quantized(values, format) }
      if let difference = found.difference(from: expected, blockSize: format.blockSize) {
        Issue.record("block size \(format.blockSize), \(values.count) values: \(difference)", sourceLocation: location)
      }
    }

    @Test(arguments: QuantizeCase.all)
    func sizes(_ c: QuantizeCase) throws {
      var random = Random(1)
      for blockSize in FourBitFormat.blockSizes {
        let format = try #require(FourBitFormat(code: c.code, blockSize: blockSize))
        let counts = [0, 1, 2, 31, blockSize - 1, blockSize, blockSize + 1, 2 * blockSize + 17]
        for count in blockSize < 1024 ? counts : [blockSize - 1, 2 * blockSize + 17] {
          try check(Values((0..<count).map { _ in random.normal() * 0.02 }, as: c.type), format, target: c.target)
        }
      }
      // More blocks than are treated together.
      let format = try #require(FourBitFormat(code: c.code, blockSize: 64))
      try check(Values((0..<64 * 37 + 5).map { _ in random.normal() }, as: c.type), format, target: c.target)
    }

    /// Every absmax a 16-bit type has (and as many of f32), each with the values around all midpoints:
    /// codes rise with the values, so agreement there is agreement everywhere.
    @Test(arguments: QuantizeCase.all)
    func everyThreshold(_ c: QuantizeCase) throws {
      let format = try #require(FourBitFormat(code: c.code, blockSize: 64))
      var random = Random(2)
      var values: [Double] = []
      let patterns: [UInt64] =
        switch c.type {
        case .bf16: Array(0..<0x7F80)
        case .f16: Array(0..<0x7C00)
        case .f32: (0..<0x7F80).map { $0 << 16 | random.next() & 0xFFFF }
        }
      let step = Double(sign: .plus, exponent: c.type == .bf16 ? -7 : c.type == .f16 ? -10 : -23, significand: 1)
      // A debug build takes its time: each instruction set sees every 29th absmax there.
      #if DEBUG
        let sampled = stride(from: c.target, to: patterns.count, by: 29).map { patterns[$0] }
      #else
        let sampled = patterns
      #endif
      for pattern in sampled {
        let absmax = Reference.value(bits: pattern, as: c.type)
        var block = [absmax, 0, -0.0, -absmax]
        for midpoint in c.code.midpoints {
          let middle = Double(midpoint) * absmax
          block += [middle * (1 - step), middle, middle * (1 + step), middle * (1 + step / 2)]
        }
        // FP4 tells zero from a product that vanishes.
        if c.code == .fp4 {
          let vanishing = Double(sign: .plus, exponent: -150, significand: absmax)
          for (index, factor) in [1, 1 - step, 1 + step, -1].enumerated() {
            block[4 + 7 * 4 + index] = vanishing * factor
          }
        }
        values += block.map { max(-absmax, min(absmax, $0)) }
      }
      try check(Values(values, as: c.type), format, target: c.target)
    }

    @Test(arguments: QuantizeCase.all)
    func anyBitPattern(_ c: QuantizeCase) throws {
      var random = Random(3)
      for blockSize in [32, 256] {
        let format = try #require(FourBitFormat(code: c.code, blockSize: blockSize))
        for _ in 0..<8 {
          let scale = Double(sign: .plus, exponent: Int.random(in: -60...0, using: &random), significand: 1)
          let values = (0..<blockSize * 9 + 3).map { _ in random.anyFinite(c.type) * scale }
          try check(Values(values, as: c.type), format, target: c.target)
        }
      }
    }

    @Test(arguments: QuantizeCase.all)
    func zeros(_ c: QuantizeCase) throws {
      let format = try #require(FourBitFormat(code: c.code, blockSize: 32))
      let values = Values((0..<77).map { $0 % 3 == 0 ? -0.0 : 0.0 }, as: c.type)
      let quantized = try Target.with(c.target) { try Quantized(values, format) }
      #expect(quantized.codes == [UInt8](repeating: c.code == .nf4 ? 0x77 : 0x00, count: 39))
      // bitsandbytes stores what it divides by for a partial block.
      #expect(quantized.absmax == [0, 0, 1e-38])
    }

    @Test(arguments: QuantizeCase.all)
    func firstNonFinite(_ c: QuantizeCase) throws {
      let format = try #require(FourBitFormat(code: c.code, blockSize: 64))
      var random = Random(4)
      let good = (0..<64 * 20 + 21).map { _ in random.normal() }
      for index in [0, 1, 63, 64, 700, 64 * 20 - 1, 64 * 20, good.count - 1] {
        for value in [Double.nan, .infinity, -.infinity] {
          var values = good
          values[index] = value
          values[good.count - 1] = value
          #expect(throws: NonFinite(index: index, value: Float(value))) {
            try Target.with(c.target) { _ = try Quantized(Values(values, as: c.type), format) }
          }
        }
      }
    }
  }
}

@Suite struct PieceTests {
  @Test(arguments: FourBitCode.allCases, FloatType.allCases)
  func resultsDoNotDependOnTheCut(code: FourBitCode, type: FloatType) throws {
    var random = Random(5)
    for blockSize in [32, 64, 512] {
      let format = try #require(FourBitFormat(code: code, blockSize: blockSize))
      let values = Values((0..<blockSize * 23 + 7).map { _ in random.normal() }, as: type)
      let whole = try Quantized(values, format)
      for blocksPerPiece in [1, 3, 16, 22] {
        var joined = Quantized(codes: [], absmax: [])
        for start in stride(from: 0, to: values.count, by: blocksPerPiece * blockSize) {
          let end = min(values.count, start + blocksPerPiece * blockSize)
          let piece = try Quantized(values, format, start..<end)
          joined.codes += piece.codes
          joined.absmax += piece.absmax
        }
        #expect(joined == whole)
      }
    }
  }

  @Test func shortBuffersTrap() async {
    await #expect(processExitsWith: .failure) {
      let format = try #require(FourBitFormat(code: .nf4, blockSize: 64))
      let values = Values([Double](repeating: 1, count: 129), as: .bf16)
      var codes = [UInt8](repeating: 0, count: 65)
      var absmax = [Float](repeating: 0, count: 2)
      try values.withBytes { bytes in
        try codes.withUnsafeMutableBytes { codes in
          try absmax.withUnsafeMutableBufferPointer {
            try format.quantize(bytes, as: .bf16, codes: codes, absmax: $0)
          }
        }
      }
    }
  }
}
