import Testing

@testable import Quantization

extension BlockType {
  static let leveled = allCases.filter { $0.levels != nil }

  fileprivate func values(_ count: Int, seed: UInt64) -> [Float] {
    var random = Random(seed)
    return (0..<count).map { _ in Float(random.normal()) }
  }
}

extension KernelTests {
  @Suite struct LevelTests {
    @Test func kinds() {
      #expect(
        Set(BlockType.leveled) == [
          .q4_0, .q4_1, .q5_0, .q5_1, .q8_0, .q2_K, .q3_K, .q4_K, .q5_K, .q6_K, .iq4_nl, .iq4_xs,
        ])
    }

    /// Any codes in the place of an encoder's: what is decoded is the level of each times its scale less its minimum, and
    /// nothing but the codes has changed.
    @Test(arguments: BlockType.leveled)
    func storedCodes(_ type: BlockType) throws {
      let levels = try #require(type.levels)
      let (count, stride) = (3, 4)
      let size = type.valuesPerBlock
      let before = try type.encoded(type.values(count * size, seed: 1))
      let (scales, minima) = type.factors(of: before, stride: stride)
      #expect(scales.count == size / levels.groupSize * stride && minima.count == scales.count)
      var random = Random(2)
      let span = levels.range.count
      var codes = (0..<size * stride).map { _ in UInt8(Int(random.next() % UInt64(span))) }
      // Both ends are there in any case.
      (codes[0], codes[1]) = (0, UInt8(span - 1))
      var blocks = before
      type.store(codes, stride: stride, into: &blocks)
      let expected = (0..<count * size).map { index -> Float in
        let (block, place) = (index / size, index % size)
        let code = Int(codes[place * stride + block])
        let group = place / levels.groupSize * stride + block
        let level = levels.table?[code] ?? Float(levels.range.lowerBound + code)
        return level * scales[group] - minima[group]
      }
      #expect(type.decoded(blocks) == expected)
      #expect(type.factors(of: blocks, stride: stride) == (scales, minima))
      // With the codes of the encoder, its blocks.
      let own = (0..<size * stride).map { index -> UInt8 in
        let (place, block) = (index / stride, index % stride)
        guard block < count else { return 0 }
        let group = place / levels.groupSize * stride + block
        let value = type.decoded(before)[block * size + place]
        let code = (0..<span).first { code in
          (levels.table?[code] ?? Float(levels.range.lowerBound + code)) * scales[group] - minima[group] == value
        }
        return UInt8(code ?? 255)
      }
      type.store(own, stride: stride, into: &blocks)
      #expect(type.decoded(blocks) == type.decoded(before))
    }

    @Test(arguments: [BlockType.q4_K, .q6_K, .q8_0, .iq4_xs])
    func feedbackLikeTheTwin(_ type: BlockType) throws {
      let levels = try #require(type.levels)
      let (rows, columns, first, count) = (48, 86, 16, 64)
      let groups = count / levels.groupSize * rows
      var random = Random(9)
      var matrix = (0..<rows * columns).map { _ in Float(random.normal()) }
      let factor = (0..<columns * columns).map { $0 % columns == $0 / columns ? 2 : Float(random.normal()) * 0.1 }
      var scales = (0..<groups).map { _ in Float(random.normal()) / Float(levels.range.upperBound) }
      let minima = (0..<groups).map { _ in Float(random.normal()) }
      scales[5] = 0
      // Halfway between two levels, far beyond the last ones, and what no weight should be.
      scales[6] = 0.5
      for (row, value) in [(6, 0.25), (7, Float.infinity), (8, -1e30), (9, .nan), (10, 1e30)] {
        matrix[first * rows + row] = value - (row == 6 ? minima[6] : 0)
      }
      func run(_ body: (inout [Float], inout [UInt8], inout [Float]) -> Void) -> ([UInt32], [UInt8], [UInt32]) {
        var matrix = matrix
        var codes = [UInt8](repeating: 99, count: rows * count)
        var errors = [Float](repeating: -1, count: rows * count)
        body(&matrix, &codes, &errors)
        return (bits(matrix), codes, bits(errors))
      }
      // A NaN is one, whatever its sign and payload.
      func bits(_ values: [Float]) -> [UInt32] { values.map { $0.isNaN ? .max : $0.bitPattern } }
      let expected = run { matrix, codes, errors in
        Reference.feedback(
          &matrix, rows: rows, first: first, count: count, factor: factor, levels: levels, scales: scales,
          minima: minima, codes: &codes, errors: &errors)
      }
      #expect(expected.1.allSatisfy { Int($0) < levels.range.count })
      for target in Target.all {
        let found = Target.with(target) {
          run { matrix, codes, errors in
            levels.feedback(
              &matrix, rows: rows, first: first, count: count, factor: factor, scales: scales, minima: minima,
              codes: &codes, errors: &errors)
          }
        }
        #expect(found == expected, "\(KernelTarget.names[target])")
      }
    }
  }
}
