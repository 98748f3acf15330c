import Testing

@testable import Quantization

struct GroupCase: Sendable, CustomTestStringConvertible {
  var target: Int
  var format: GroupFormat
  var testDescription: String { "\(format.testDescription) on \(KernelTarget.names[target])" }

  static let all = Target.all.flatMap { target in GroupFormat.all.map { GroupCase(target: target, format: $0) } }
}

extension KernelTests {
  @Suite struct GroupKernels {
    func checkQuantize(_ values: Values, _ c: GroupCase, _ location: SourceLocation = #_sourceLocation) throws {
      let expected = try c.format.quantized(values, byReference: true)
      let found = try Target.with(c.target) { try c.format.quantized(values) }
      if let difference = c.format.difference(found, from: expected) {
        Issue.record("\(values.type), \(values.count) values: \(difference)", sourceLocation: location)
      }
    }

    /// None, fewer and more groups than are treated together.
    @Test(arguments: GroupCase.all)
    func sizes(_ c: GroupCase) throws {
      var random = Random(21)
      for type in FloatType.allCases {
        for groups in [0, 1, 15, 17] {
          let values = (0..<groups * c.format.groupSize).map { _ in random.normal() * 0.02 }
          try checkQuantize(Values(values, as: type), c)
        }
      }
    }

    @Test(arguments: GroupCase.all)
    func anyBitPattern(_ c: GroupCase) throws {
      var random = Random(22)
      for type in FloatType.allCases {
        let values = (0..<24).flatMap { _ in
          // Half of what is finite at most, so that no range is infinite.
          let scale = Double(sign: .plus, exponent: Int.random(in: -40 ... -1, using: &random), significand: 1)
          let offset = Int.random(in: 0...2, using: &random) == 0 ? random.anyFinite(type) / 4 : 0
          return (0..<c.format.groupSize).map { _ in random.anyFinite(type) * scale / 2 + offset }
        }
        try checkQuantize(Values(values, as: type), c)
      }
    }

    /// Codes halfway between two, exactly.
    @Test(arguments: GroupCase.all)
    func ties(_ c: GroupCase) throws {
      var random = Random(23)
      let steps = c.format.mode == .mxfp4 ? 24 : 1 << c.format.bits - 1
      for type in FloatType.allCases {
        let values = (0..<17 * c.format.groupSize).map { index in
          let sign: Double = index / c.format.groupSize % 2 == 0 ? 1 : -1
          return sign * (index % 32 == 0 ? Double(steps) : Double(Int.random(in: 0...2 * steps, using: &random)) / 2)
        }
        try checkQuantize(Values(values, as: type), c)
      }
    }

    /// Every largest magnitude that a 16-bit type has, and as many of f32, with values around all midpoints.
    @Test(arguments: Target.all, FloatType.allCases)
    func everyScale(target: Int, type: FloatType) throws {
      let format = try #require(GroupFormat(mode: .mxfp4, bits: 4, groupSize: 32))
      var random = Random(24)
      let patterns: [UInt64] =
        switch type {
        case .bf16: Array(0..<0x7F80)
        case .f16: Array(0..<0x7C00)
        case .f32: (0..<0x7F80).map { $0 << 16 | random.next() & 0xFFFF }
        }
      // A debug build takes its time: each instruction set sees every 29th there.
      #if DEBUG
        let sampled = stride(from: target, to: patterns.count, by: 29).map { patterns[$0] }
      #else
        let sampled = patterns
      #endif
      var values: [Double] = []
      for pattern in sampled {
        let largest = Reference.value(bits: pattern, as: type)
        let exponent = largest == 0 ? 0 : Int(largest.exponent) - (largest.significand > 1.5 ? 1 : 2)
        let scale = Double(sign: .plus, exponent: exponent, significand: 1)
        var group = [largest, -largest, 0, -0.0]
        for midpoint in [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5] as [Double] {
          let middle = scale * midpoint
          group += [middle, -middle, middle * 1.01, middle * 0.99]
        }
        values += group.map { max(-largest, min(largest, $0)) }
      }
      try checkQuantize(Values(values, as: type), GroupCase(target: target, format: format))
    }

    @Test(arguments: GroupCase.all)
    func dequantize(_ c: GroupCase) throws {
      var random = Random(25)
      for type in FloatType.allCases {
        for groups in [0, 1, 16, 35] {
          let count = groups * c.format.groupSize
          var parts = Groups(
            packed: random.bytes(c.format.packedByteCount(count)),
            scales: random.bytes(c.format.scaleByteCount(count, as: type)),
            biases: random.bytes(c.format.biasByteCount(count, as: type)))
          if c.format.mode == .affine && groups == 35 {
            // Ordinary ones, and what a damaged file may hold.
            let scales = (0..<groups).map { $0 == 20 ? .infinity : $0 == 30 ? .nan : random.normal() * 0.01 }
            parts.scales = Values(scales, as: type).bytes
            parts.biases = Values((0..<groups).map { _ in random.normal() }, as: type).bytes
          }
          for output in c.format.mode == .affine ? Set([type, .f32]) : [type] {
            let expected = c.format.dequantized(
              parts, scaleType: type, count: count, as: output, byReference: true)
            let found = Target.with(c.target) {
              c.format.dequantized(parts, scaleType: type, count: count, as: output)
            }
            if let difference = found.firstDifference(from: expected) {
              Issue.record("\(groups) groups of \(type) as \(output): \(difference)")
            }
          }
        }
      }
    }

    @Test(arguments: GroupCase.all)
    func firstNonFinite(_ c: GroupCase) throws {
      var random = Random(26)
      let good = (0..<c.format.groupSize * 20).map { _ in random.normal() }
      let places: [(Int, Double)] = [
        (0, .nan), (1, .infinity), (c.format.groupSize - 1, -.infinity), (c.format.groupSize * 17 + 5, -.nan),
        (good.count - 1, .infinity),
      ]
      for type in FloatType.allCases {
        for (index, value) in places {
          var values = good
          values[good.count - 1] = value
          values[index] = value
          // The twin does not depend on the instruction set.
          for byReference in c.target == 0 ? [false, true] : [false] {
            #expect(throws: NonFinite(index: index, value: Float(value))) {
              try Target.with(c.target) {
                _ = try c.format.quantized(Values(values, as: type), byReference: byReference)
              }
            }
          }
        }
      }
    }

    /// Finite values whose range is not: no scale holds them.
    @Test(arguments: GroupCase.all.filter { $0.format.mode == .affine })
    func rangeTooGreat(_ c: GroupCase) throws {
      for type in [FloatType.bf16, .f32] {
        var values = [Double](repeating: 1, count: c.format.groupSize * 18)
        values[c.format.groupSize * 17 + 3] = -0x1p127
        values[c.format.groupSize * 17 + 9] = 0x1.8p127
        for byReference in [false, true] {
          #expect(throws: NonFinite(index: c.format.groupSize * 17 + 9, value: 0x1.8p127)) {
            try Target.with(c.target) {
              _ = try c.format.quantized(Values(values, as: type), byReference: byReference)
            }
          }
        }
      }
    }
  }
}

@Suite struct GroupFormatTests {
  @Test func knownToMLX() {
    for bits in -1...9 {
      for size in -1...256 {
        let isKnown = [2, 3, 4, 5, 6, 8].contains(bits) && [32, 64, 128].contains(size)
        #expect((GroupFormat(bits: bits, groupSize: size) != nil) == isKnown)
        #expect((GroupFormat(mode: .mxfp4, bits: bits, groupSize: size) != nil) == (bits == 4 && size == 32))
      }
    }
  }

  /// Written out by hand: codes in steps of one, from the greatest down, since the scale is -1.
  @Test func packing() throws {
    let format = try #require(GroupFormat(bits: 3, groupSize: 32))
    let groups = try format.quantized(Values((0..<32).map { Double(7 - $0 % 8) }, as: .f32))
    // 0 to 7, of three bits each: 0xFAC688.
    #expect(groups.packed == [0x88, 0xC6, 0xFA, 0x88, 0xC6, 0xFA, 0x88, 0xC6, 0xFA, 0x88, 0xC6, 0xFA])
    #expect(groups.scales == [0, 0, 0x80, 0xBF])
    #expect(groups.biases == [0, 0, 0xE0, 0x40])
  }

  /// The least scale of MXFP4 is 2^-127, however small the values.
  @Test func scalesDoNotWrap() throws {
    let format = try #require(GroupFormat(mode: .mxfp4, bits: 4, groupSize: 32))
    let groups = try format.quantized(Values([Double](repeating: 0x1p-127, count: 32), as: .f32))
    #expect(groups.scales == [0])
    #expect(groups.packed == [UInt8](repeating: 0x22, count: 16))
    let values = format.dequantized(groups, scaleType: .f32, count: 32, as: .f32)
    #expect((0..<32).allSatisfy { values[$0] == 0x1p-127 })
  }

  @Test func shortBuffersTrap() async {
    await #expect(processExitsWith: .failure) {
      let format = try #require(GroupFormat(bits: 4, groupSize: 32))
      let values = [Float](repeating: 1, count: 64)
      var codes = [UInt8](repeating: 0, count: 31)
      var factors = [UInt8](repeating: 0, count: 8)
      var offsets = factors
      var codeSpan = codes.mutableSpan
      var scaleSpan = factors.mutableSpan
      var biasSpan = offsets.mutableSpan
      var packed = codeSpan.mutableBytes
      var scales = scaleSpan.mutableBytes
      var biases = biasSpan.mutableBytes
      try format.quantize(values.span.bytes, as: .f32, packed: &packed, scales: &scales, biases: &biases)
    }
  }
}
