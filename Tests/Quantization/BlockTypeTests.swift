import Testing

@testable import Quantization

struct BlockCase: Sendable, CustomTestStringConvertible {
  var target: Int
  var type: BlockType
  var testDescription: String { "\(type.name) on \(KernelTarget.names[target])" }

  static let decoders = Target.all.flatMap { target in
    BlockType.allCases.filter { $0.row.decoder != nil }.map { BlockCase(target: target, type: $0) }
  }
  static let encoders = Target.all.flatMap { target in
    BlockType.allCases.filter { $0.row.encoder != nil && $0.row.codec is any BlockEncoder.Type }
      .map { BlockCase(target: target, type: $0) }
  }
}

/// The largest value of a kind is that many times the largest scale.
struct ScaleLimit: Sendable, CustomTestStringConvertible {
  var type: BlockType
  var levels: Float
  var testDescription: String { type.name }

  init(_ type: BlockType, _ levels: Float) {
    self.type = type
    self.levels = levels
  }

  static let all = [
    ScaleLimit(.q4_0, 8), ScaleLimit(.q4_0, -8), ScaleLimit(.q5_0, -16), ScaleLimit(.q8_0, 127),
    ScaleLimit(.q4_1, -1), ScaleLimit(.q4_1, 15), ScaleLimit(.q5_1, -1), ScaleLimit(.q5_1, 31), ScaleLimit(.tq1_0, 1),
    ScaleLimit(.tq2_0, -1), ScaleLimit(.q1_0, 128), ScaleLimit(.q2_0, -1),
  ]
}

/// The table itself, row by row.
@Suite struct BlockTypeTests {
  @Test(arguments: BlockType.allCases)
  func layout(type: BlockType) {
    #expect(type.row.codec.fields.reduce(0) { $0 + $1.byteCount } == type.bytesPerBlock)
    #expect(type.row.codec.halves.allSatisfy { $0 + 2 <= type.bytesPerBlock })
    #expect(type.byteCount(0) == 0)
    #expect(type.byteCount(3 * type.valuesPerBlock) == 3 * type.bytesPerBlock)
    #expect(type.byteCount(type.valuesPerBlock + 1) == nil && type.byteCount(-type.valuesPerBlock) == nil)
    let largest = Int.max - Int.max % type.valuesPerBlock
    #expect((type.byteCount(largest) == nil) == (type.bytesPerBlock > type.valuesPerBlock))
    #expect(BlockType(rawValue: type.name) == type)
  }

  /// Bits per value as ggml's authors give them.
  @Test(arguments: [
    (BlockType.q4_0, 4.5), (.q8_0, 8.5), (.q2_K, 2.625), (.q3_K, 3.4375), (.q4_K, 4.5), (.q5_K, 5.5), (.q6_K, 6.5625),
    (.iq2_xxs, 2.0625), (.iq2_xs, 2.3125), (.iq2_s, 2.5625), (.iq3_xxs, 3.0625), (.iq3_s, 3.4375), (.iq1_s, 1.5625),
    (.iq1_m, 1.75), (.iq4_nl, 4.5), (.iq4_xs, 4.25), (.tq1_0, 1.6875), (.tq2_0, 2.0625), (.mxfp4, 4.25),
  ])
  func bitsPerValue(type: BlockType, bits: Double) {
    #expect(Double(type.bytesPerBlock * 8) / Double(type.valuesPerBlock) == bits)
  }

  @Test func grids() {
    let grids: [(BlockGrid, Int)] = [
      (.iq2XXS, 256), (.iq2XS, 512), (.iq2S, 1024), (.iq3XXS, 256), (.iq3S, 512), (.iq1, 2048),
    ]
    for (grid, count) in grids { #expect(grid.count == count) }
  }

  @Test func nothing() throws {
    for type in BlockType.allCases {
      #expect(type.decoded([]) == [])
      if type.canEncode { #expect(try type.encoded([], rowLength: type.valuesPerBlock) == []) }
    }
  }

  /// A block of each of two kinds, by hand.
  @Test func byHand() throws {
    let values = (0..<32).map { Float($0 - 16) / 2 }
    // The scale is -8 / -8 = 1; halves are rounded up, and the codes of 7.5 and 7 are cut to 15.
    let q4 = try BlockType.q4_0.encoded(values)
    #expect(q4[..<2] == [0x00, 0x3C])
    #expect(q4[2] == 0x80 && q4[3] == 0x91 && q4[17] == 0xF8)
    #expect(BlockType.q4_0.decoded(q4).prefix(4) == [-8, -7, -7, -6])
    let q8 = try BlockType.q8_0.encoded((0..<32).map { Float($0) * 127 / 31 })
    #expect(q8[..<2] == [0x00, 0x3C] && q8[2] == 0 && q8[33] == 127)
  }
}

extension KernelTests {
  @Suite struct Blocks {
    /// Any bytes at all, infinite scales and NaN among them.
    @Test(arguments: BlockCase.decoders)
    func decodesAsCodec(_ c: BlockCase) {
      var random = Random(31)
      for count in [1, 2, 7, 64] {
        let blocks = random.bytes(count * c.type.bytesPerBlock)
        let found = Target.with(c.target) { c.type.decoded(blocks) }
        #expect(bits(found) == bits(c.type.decodedByCodec(blocks)))
      }
    }

    @Test(arguments: BlockCase.encoders)
    func encodesAsCodec(_ c: BlockCase) throws {
      for seed in UInt64(40)..<44 {
        let values = BlockDigest.values(seed, pieces: 24, lowest: 0)
        let found = try Target.with(c.target) { try c.type.encoded(values) }
        #expect(found == c.type.encodedByCodec(values))
      }
    }

    /// Magnitudes a few units in the last place below powers of two, whose logarithms in 32 bits are whole.
    @Test(arguments: Target.all)
    func exponents(target: Int) throws {
      var values: [Float] = []
      for exponent in [-126, -125, -65, -64, -33, -32, -9, -8, -5, -4, -3, -2, -1, 0, 1, 2, 3, 7, 8, 63, 64, 126, 127] {
        for step in 0..<96 {
          values += [Float](repeating: 0, count: 31)
          values.append(Float(sign: .plus, exponent: exponent, significand: 2 - Float(step) * 0x1p-23 - 0x1p-23))
        }
      }
      let found = try Target.with(target) { try BlockType.mxfp4.encoded(values) }
      #expect(found == BlockType.mxfp4.encodedByCodec(values))
    }

    @Test(arguments: BlockCase.encoders.filter { $0.type.importance == .optional })
    func searchesAsCodec(_ c: BlockCase) throws {
      let codec = try #require(c.type.row.codec as? any WeightedBlockEncoder.Type)
      var random = Random(32)
      for kind in 0..<6 {
        let rows = 2
        let length = 96
        let values = (0..<rows * length).map { index -> Float in
          switch kind {
          case 0: Float(random.normal() * 0.02)
          case 1: Float(abs(random.normal()) + 1)
          case 2: Float(Int(random.next() % 5)) * 0.25
          case 3: index / 32 % 2 == 0 ? 0.3 : -0.0
          case 4: Float(random.normal()) * Float(sign: .plus, exponent: Int(random.next() % 60) - 50, significand: 1)
          default: Float(random.normal() * 1e4)
          }
        }
        var importance = (0..<length).map { _ in Float(random.normal() * random.normal()).magnitude }
        if kind > 2 { for i in 0..<40 { importance[i] = i == 7 ? 1e38 : 0 } }
        let found = try Target.with(c.target) {
          try c.type.encoded(values, rowLength: length, importance: importance)
        }
        var expected = [UInt8](repeating: 0xA5, count: found.count)
        expected.withUnsafeMutableBytes { bytes in
          for row in 0..<rows {
            let range = row * bytes.count / rows..<(row + 1) * bytes.count / rows
            codec.encode(
              Array(values[row * length..<(row + 1) * length]), importance: importance,
              into: UnsafeMutableRawBufferPointer(rebasing: bytes[range]))
          }
        }
        #expect(found == expected, "kind \(kind)")
      }
    }

    @Test(arguments: Target.all)
    func refusesWhatIsNotFinite(target: Int) {
      for type in BlockType.allCases where type.canEncode {
        let rowLength = 2 * type.valuesPerBlock
        for (index, value) in [(0, Float.nan), (rowLength - 1, -.infinity), (3 * rowLength + 5, .infinity)] {
          var values = [Float](repeating: 0.5, count: 40 * rowLength)
          values[index] = value
          // A later one is not the first.
          values[39 * rowLength] = .nan
          let found = refusal { try Target.with(target) { try type.encoded(values, rowLength: rowLength) } }
          #expect(found == NonFinite(index: index, value: value), "\(type)")
        }
      }
    }

    /// What ggml would give an infinite scale, or an infinite offset.
    @Test(arguments: ScaleLimit.all)
    func refusesScalesBeyondSixteenBits(limit: ScaleLimit) {
      var values = [Float](repeating: 0, count: 256 * 30)
      values[256 * 20 + 3] = limit.levels * 65519.5
      for importance in [nil, [Float](repeating: 1, count: 256)] {
        #expect(refusal { try limit.type.encoded(values, rowLength: 256, importance: importance) } == nil)
      }
      values[256 * 20 + 3] = limit.levels * 65521
      let found = refusal { try limit.type.encoded(values, rowLength: 256) }
      #expect(found == NonFinite(index: 256 * 20 + 3, value: limit.levels * 65521))
    }

    /// Normal values keep their signal: the error in proportion to what their number of bits allows.
    @Test(arguments: BlockType.allCases.filter(\.canEncode))
    func isNearToWhatWasEncoded(type: BlockType) throws {
      var random = Random(33)
      let values = (0..<8192).map { _ in Float(random.normal()) }
      let bitsPerValue = Double(type.bytesPerBlock * 8) / Double(type.valuesPerBlock)
      let error = relativeError(values, type.decoded(try type.encoded(values)))
      // Rate-distortion theory allows 4^-bits for normal values, and no encoder reaches it.
      #expect(error > pow4(-bitsPerValue))
      #expect(error < 8 * pow4(-bitsPerValue) + 0.002 || bitsPerValue < 2.5 && error < 0.75, "\(error)")
      // What was decoded is encoded without further loss, but for the rounding of the scale.
      let once = type.decoded(try type.encoded(values))
      #expect(relativeError(once, type.decoded(try type.encoded(once))) < max(error / 2, 1e-5))
    }

    private func relativeError(_ values: [Float], _ found: [Float]) -> Double {
      let errors = zip(values, found).reduce(0.0) { $0 + Double(($1.0 - $1.1) * ($1.0 - $1.1)) }
      return errors / values.reduce(0.0) { $0 + Double($1 * $1) }
    }

    private func pow4(_ exponent: Double) -> Double {
      var result = 1.0
      for _ in 0..<Int(-exponent * 16) { result *= 0.917004043204671 }
      return result
    }

    private func refusal(_ body: () throws -> [UInt8]) -> NonFinite? {
      do {
        _ = try body()
        return nil
      } catch { return error as? NonFinite }
    }
  }
}
