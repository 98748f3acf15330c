import Testing

@testable import Quantization

extension KernelTests {
  @Suite struct Statistics {
    @Test(arguments: Target.all, FloatType.allCases)
    func agreesWithReference(target: Int, type: FloatType) {
      var random = Random(11)
      for count in [1, 7, 8, 9, 1023, 1024, 1025, 5000] {
        let values = Values(
          (0..<count).map { index in
            switch random.next() % 40 {
            case 0: .nan
            case 1: .infinity
            case 2: -.infinity
            case 3: 0
            case 4: -0.0
            default: random.normal() * Double(index + 1)
            }
          }, as: type)
        var found = ValueStatistics()
        Target.with(target) { values.withBytes { found.add($0, as: type) } }
        #expect(found == values.withBytes { Reference.statistics($0, as: type) }, "\(count) values")
      }
    }

    @Test(arguments: Target.all)
    func byHand(target: Int) {
      let values = Values([1, -3, 0, -0.0, .nan, 2, .infinity, 4], as: .f16)
      var s = ValueStatistics()
      Target.with(target) { values.withBytes { s.add($0, as: .f16) } }
      #expect((s.count, s.zeros, s.nans, s.infinities, s.finite) == (8, 2, 1, 1, 6))
      #expect((s.minimum, s.maximum, s.sum, s.sumOfSquares) == (-3, 4, 4, 30))
      #expect(s.mean == 4.0 / 6)
      #expect(abs(s.standardDeviation - (5 - 4.0 / 9).squareRoot()) < 1e-15)
      var onlyNaN = ValueStatistics()
      Target.with(target) { Values([.nan], as: .f32).withBytes { onlyNaN.add($0, as: .f32) } }
      #expect(onlyNaN.minimum == .infinity && onlyNaN.maximum == -.infinity && onlyNaN.mean.isNaN)
      s.merge(onlyNaN)
      #expect((s.count, s.nans, s.minimum) == (9, 2, -3))
    }
  }
}

@Suite struct TransposeTests {
  @Test(arguments: [2, 4, 8])
  func transposes(elementBytes: Int) {
    var random = Random(12)
    for (rows, columns) in [(0, 5), (1, 1), (1, 40), (40, 1), (31, 33), (32, 64), (100, 65)] {
      let matrix = (0..<rows * columns * elementBytes).map { _ in UInt8.random(in: 0...255, using: &random) }
      var found = [UInt8](repeating: 0xA5, count: matrix.count + 8)
      var expected = found
      matrix.withUnsafeBytes { matrix in
        found.withUnsafeMutableBytes {
          transpose(matrix, rows: rows, columns: columns, elementBytes: elementBytes, into: $0)
        }
        expected.withUnsafeMutableBytes {
          Reference.transpose(matrix, rows: rows, columns: columns, elementBytes: elementBytes, into: $0)
        }
      }
      #expect(found == expected, "\(rows) × \(columns)")
    }
  }
}
