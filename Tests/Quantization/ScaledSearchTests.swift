import Foundation
import Testing

@testable import Quantization

extension ScaledFormat {
  static let searchable = all.filter(\.isSearchable)

  /// Codes and behind them scales, by the kernels of the instruction set in use, or by the twin; at odd addresses.
  func searched(
    _ values: Values, columns: Int, globalScale: Float = 1, _ search: ScaledSearch, byReference: Bool = false
  ) throws -> (codes: [UInt8], scales: [UInt8]) {
    let group = try #require(blockColumns)
    var codes = [UInt8](repeating: 0xA5, count: values.count / 2 + 65)
    var scales = [UInt8](repeating: 0xA5, count: values.count / group * scaleByteCount(as: values.type) + 65)
    let used = [codes.count - 64, scales.count - 64]
    try values.withBytes { bytes in
      try codes.withUnsafeMutableBytes { codes in
        try scales.withUnsafeMutableBytes { scales in
          let rooms = zip([codes, scales], used).map { UnsafeMutableRawBufferPointer(rebasing: $0[1..<$1]) }
          if byReference {
            return try Reference.quantize(
              bytes, as: values.type, format: self, columns: columns, globalScale: globalScale, search: search,
              codes: rooms[0], scales: rooms[1])
          }
          var codes = MutableRawSpan(_unsafeBytes: rooms[0])
          var scales = MutableRawSpan(_unsafeBytes: rooms[1])
          try quantize(
            RawSpan(_unsafeBytes: bytes), as: values.type, columns: columns, globalScale: globalScale, search: search,
            codes: &codes, scales: &scales)
        }
      }
    }
    for (bytes, used) in zip([codes, scales], used) {
      #expect(bytes[0] == 0xA5 && bytes[used...].allSatisfy { $0 == 0xA5 }, "written beyond the output")
    }
    return (Array(codes[1..<used[0]]), Array(scales[1..<used[1]]))
  }

  /// The squared error of each group, as a loader multiplies it out, before it rounds.
  func errors(
    _ stored: (codes: [UInt8], scales: [UInt8]), _ values: Values, globalScale: Float = 1, weights: [Double] = [1]
  ) throws -> [Double] {
    let group = try #require(blockColumns)
    let levels = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    return (0..<values.count / group).map { block in
      let scale =
        switch kind {
        case .int4: stored.scales.withUnsafeBytes { Reference.load($0, block, as: values.type) }
        case .nvfp4: Double(Reference.value(of: Int(stored.scales[block]), .e4m3) / globalScale)
        default: Double(sign: .plus, exponent: Int(stored.scales[block]) - 127, significand: 1)
        }
      return (block * group..<(block + 1) * group).reduce(0) { sum, index in
        let code = Int(stored.codes[index / 2] >> (index % 2 * 4) & 15)
        let level = kind == .int4 ? Double(code - 8) : levels[code & 7] * (code > 7 ? -1 : 1)
        let difference = values[index] - level * scale
        return sum + weights[index % weights.count] * difference * difference
      }
    }
  }
}

extension KernelTests {
  @Suite struct ScaledSearchKernels {
    private static func columnWeights(_ columns: Int, _ random: inout Random) -> ColumnWeights? {
      ColumnWeights((0..<columns).map { $0 % 5 == 1 ? 0 : Float(exp(2 * random.normal())) }, blockSize: 0)
    }

    /// More groups than lanes and fewer, magnitudes from subnormals to the largest, with and without weights of columns. By
    /// the twin once, and on every instruction set.
    @Test(arguments: ScaledFormat.searchable)
    func likeTheTwin(_ format: ScaledFormat) throws {
      var random = Random(61)
      let width = try #require(format.blockColumns)
      for (rows, columns) in [(1, width), (9, 2 * width)] {
        for exponent in rows > 1 ? [-5] : [0, -5, -20, -30, -133, 15, 126] {
          for type in FloatType.allCases {
            let limit = type == .f16 ? 65504 : Double(0x1.FEp127 as Float)
            let values = Values(
              (0..<rows * columns).map { index in
                let value = Double(sign: .plus, exponent: exponent, significand: random.normal())
                let isZero = index % 37 == 0 || (columns..<columns + width).contains(index)
                return isZero ? -0.0 : min(max(value, -limit), limit)
              }, as: type)
            let largest = values.withBytes { ScaledFormat.largestMagnitude(RawSpan(_unsafeBytes: $0), as: type) }
            let global = ScaledFormat.globalScale(largest: largest, as: type)
            for weights in [nil, Self.columnWeights(columns, &random)] {
              let search = ScaledSearch(allowsNegative: exponent != 0, weights: weights)
              let expected = try format.searched(
                values, columns: columns, globalScale: global, search, byReference: true)
              for target in Target.all {
                let found = try Target.with(target) {
                  try format.searched(values, columns: columns, globalScale: global, search)
                }
                let name = "\(type), about 2^\(exponent), weighted \(weights != nil), \(KernelTarget.names[target])"
                #expect(found == expected, "\(rows) x \(columns) of \(name)")
              }
            }
          }
        }
      }
    }

    private static func normals(_ count: Int, _ random: inout Random) -> [Double] {
      (0..<count).map { _ in
        (-2 * log(Double.random(in: 0x1p-60..<1, using: &random))).squareRoot()
          * cos(2 * .pi * Double.random(in: 0..<1, using: &random))
      }
    }

    /// No group loses more than without a search, and all together as much less as it is for.
    @Test(arguments: ScaledFormat.searchable)
    func errors(_ format: ScaledFormat) throws {
      var random = Random(5)
      let normal = Self.normals(1 << 14, &random)
      // Student's t of five degrees of freedom.
      let heavy = Self.normals(1 << 13, &random).map { value in
        value / (Self.normals(5, &random).reduce(0.0) { $0 + $1 * $1 } / 5).squareRoot()
      }
      let columns = 1024
      let importance = (0..<columns).map { _ in exp(2 * random.normal()) }
      for (name, numbers) in [("normal", normal), ("t5", heavy)] {
        let values = Values(numbers, as: .bf16)
        let largest = values.withBytes { ScaledFormat.largestMagnitude(RawSpan(_unsafeBytes: $0), as: .bf16) }
        let global = ScaledFormat.globalScale(largest: largest, as: .bf16)
        let plain = try format.quantized(values, columns: columns, globalScale: global)
        for (allowsNegative, isWeighted) in [(true, false), (false, false), (true, true)] {
          let weights = isWeighted ? importance : [1]
          let search = ScaledSearch(
            allowsNegative: allowsNegative,
            weights: isWeighted ? ColumnWeights(importance.map(Float.init), blockSize: 0) : nil)
          let found = try format.searched(values, columns: columns, globalScale: global, search)
          let mine = try format.errors(found, values, globalScale: global, weights: weights)
          let theirs = try format.errors(plain, values, globalScale: global, weights: weights)
          // Sums of 128 terms in 32 bits, each of a few roundings.
          for (mine, theirs) in zip(mine, theirs) { #expect(mine <= theirs * (1 + 140 * 0x1p-23)) }
          let share = mine.reduce(0, +) / theirs.reduce(0, +)
          let bound = Self.bound(format, allowsNegative, isWeighted) + (name == "t5" ? 0.05 : 0)
          #expect(share <= bound, "\(name), negative \(allowsNegative), weighted \(isWeighted): \(share)")
          if format.kind == .int4 {
            let signs = Set(stride(from: 1, to: found.scales.count, by: 2).map { found.scales[$0] >> 7 })
            #expect(signs == (allowsNegative ? [0, 1] : [0]))
          }
        }
      }
    }

    /// The share of the plain error that is left of values of normal distribution, with a margin of what 16000 values vary;
    /// Student's t has few large ones, and varies more.
    private static func bound(_ format: ScaledFormat, _ allowsNegative: Bool, _ isWeighted: Bool) -> Double {
      switch format.kind {
      case .mxfp4: isWeighted ? 0.98 : 0.998
      case .nvfp4: isWeighted ? 0.5 : 0.77
      default: isWeighted ? 0.58 : allowsNegative ? 0.79 : 0.87
      }
    }

    @Test(arguments: ScaledFormat.searchable)
    func feedbackLikeTheTwin(_ format: ScaledFormat) throws {
      var random = Random(9)
      let (rows, columns, first, count) = (48, 40, 16, 16)
      let matrix = (0..<rows * columns).map { $0 % 7 == 0 ? -0.0 : Float(random.normal()) }
      let factor = (0..<columns * columns).map { $0 % columns == $0 / columns ? 2 : Float(random.normal()) * 0.1 }
      let divisors = (0..<rows).map { $0 == 5 ? 0x1p-127 : Float(random.normal()) * (format.kind == .int4 ? 0.5 : 1) }
      func run(_ body: (inout [Float], inout [UInt8], inout [Float]) -> Void) -> ([Float], [UInt8], [Float]) {
        var matrix = matrix
        var codes = [UInt8](repeating: 99, count: rows * count)
        var errors = [Float](repeating: -1, count: rows * count)
        body(&matrix, &codes, &errors)
        return (matrix, codes, errors)
      }
      let expected = run { matrix, codes, errors in
        Reference.feedback(
          &matrix, rows: rows, first: first, count: count, factor: factor, divisors: divisors, format: format,
          codes: &codes, errors: &errors)
      }
      #expect(Set(expected.1) == Set(0..<16))
      for target in Target.all {
        let found = Target.with(target) {
          run { matrix, codes, errors in
            format.feedback(
              &matrix, rows: rows, first: first, count: count, factor: factor, divisors: divisors, codes: &codes,
              errors: &errors)
          }
        }
        #expect(found == expected, "\(KernelTarget.names[target])")
      }
    }

    /// What values are divided by is what the codes are multiplied with when they are read.
    @Test func divisors() throws {
      let int4 = try #require(ScaledFormat.int4(groupSize: 32))
      #expect(int4.divisors([0x40, 0x3F, 0x80, 0xBF], as: .bf16, globalScale: 7) == [0.75, -1])
      #expect(int4.divisors([0, 0x3C], as: .f16, globalScale: 7) == [1])
      #expect(ScaledFormat.mxfp4.divisors([0, 127, 130], as: .bf16, globalScale: 7) == [0x1p-127, 1, 8])
      #expect(ScaledFormat.nvfp4.divisors([0x38, 0x7E], as: .f32, globalScale: 4) == [0.25, 112])
    }

    /// A group of numbers that a scale has exactly, of either sign: nothing is lost.
    @Test func exact() throws {
      let format = try #require(ScaledFormat.int4(groupSize: 32))
      for scale in [0.75, -0.75] {
        let values = Values((0..<32).map { Double($0 % 16 - 8) * scale }, as: .bf16)
        let found = try format.searched(values, columns: 32, ScaledSearch())
        #expect(try format.errors(found, values) == [0])
        let once: [UInt8] = [0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE]
        #expect(found.codes == once + once)
      }
      // The largest magnitude a 4: 4 and 3 are beside each other, where 6 and 4.5 would not be.
      let values = Values((0..<16).map { [4, 3, 2, -4][$0 % 4] }, as: .bf16)
      let found = try ScaledFormat.nvfp4.searched(values, columns: 16, globalScale: 1, ScaledSearch())
      #expect(found.scales == [0x38] && found.codes == Array(repeating: [0x56, 0xE4], count: 4).flatMap(\.self))
    }

    @Test(arguments: ScaledFormat.searchable)
    func refused(_ format: ScaledFormat) throws {
      for value in [Double.nan, .infinity, -.infinity] {
        for index in [0, 500, 767] {
          var numbers = Array(repeating: 1.0, count: 2 * 384)
          numbers[index] = value
          for type in FloatType.allCases {
            let error = #expect(throws: NonFinite.self) {
              try format.searched(Values(numbers, as: type), columns: 384, ScaledSearch())
            }
            #expect(error?.index == index)
          }
        }
      }
    }
  }
}
