import Foundation
import Testing

@testable import Quantization

extension FourBitFormat {
  struct Searched: Equatable {
    var codes: [UInt8]
    var scales: [UInt32]
    var scaleCodes: [UInt8]
  }

  /// By the kernels of the instruction set in use, or by the twin; codes at an odd address.
  func searched(
    _ values: Values, _ search: FourBitSearch, isNested: Bool, column: Int = 0, byReference: Bool = false
  ) throws -> Searched {
    let blocks = blockCount(values.count)
    let byteCount = packedByteCount(values.count)
    var codes = [UInt8](repeating: 0xA5, count: byteCount + 65)
    var scales = [Float](repeating: -7, count: (isNested ? DoubleQuantization.blockCount(blocks) : blocks) + 1)
    var scaleCodes = [UInt8](repeating: 0xA5, count: isNested ? blocks + 1 : 0)
    try values.withBytes { bytes in
      try codes.withUnsafeMutableBytes { codes in
        try scales.withUnsafeMutableBufferPointer { scales in
          try scaleCodes.withUnsafeMutableBufferPointer { scaleCodes in
            let room = UnsafeMutableRawBufferPointer(rebasing: codes[1...])
            if byReference {
              try Reference.quantize(
                bytes, as: values.type, format: self, search: search, column: column, codes: room, scales: scales,
                scaleCodes: isNested ? scaleCodes : nil)
            } else {
              try quantize(
                bytes, as: values.type, search: search, column: column, codes: room, scales: scales,
                scaleCodes: isNested ? scaleCodes : nil)
            }
          }
        }
      }
    }
    #expect(codes[0] == 0xA5 && codes[(byteCount + 1)...].allSatisfy { $0 == 0xA5 }, "written beyond the codes")
    #expect(scales.last == -7 && (!isNested || scaleCodes.last == 0xA5), "written beyond the scales")
    return Searched(
      codes: Array(codes[1...byteCount]), scales: scales.dropLast().map(\.bitPattern),
      scaleCodes: Array(scaleCodes.dropLast()))
  }

  /// Squared error relative to the values' squares, of what a loader reads back.
  func relativeError(_ values: [Double], _ found: Searched) -> Double {
    let map = DoubleQuantization.map
    let levels = code.levels
    var error = 0.0
    var whole = 0.0
    for block in 0..<values.count / blockSize {
      let scale =
        found.scaleCodes.isEmpty
        ? Float(bitPattern: found.scales[block])
        : map[Int(found.scaleCodes[block])] * Float(bitPattern: found.scales[block / DoubleQuantization.blockSize])
      for index in block * blockSize..<(block + 1) * blockSize {
        let byte = found.codes[index / 2]
        let difference = values[index] - Double(levels[Int(index % 2 == 0 ? byte >> 4 : byte & 15)] * scale)
        error += difference * difference
        whole += values[index] * values[index]
      }
    }
    return error / whole
  }
}

extension KernelTests {
  @Suite struct SearchKernels {
    private static func values(_ count: Int, _ type: FloatType, about exponent: Int, _ random: inout Random) -> Values {
      let limit = type == .f16 ? 65504 : Double(Float.greatestFiniteMagnitude)
      return Values(
        (0..<count).map { index in
          let value = Double(sign: .plus, exponent: exponent, significand: random.normal())
          return index % 37 == 0 ? -0.0 : min(max(value, -limit), limit)
        }, as: type)
    }

    private struct Case {
      var count: Int
      var type = FloatType.bf16
      var exponent = -5
      var columns: Int?
      var kind = FourBitSearch.Kind.signed
      var isNested = true
    }

    /// Whole blocks and partial ones, magnitudes from subnormals to the largest, with and without weights of columns and
    /// double quantization. By the twin once, and on every instruction set.
    @Test(arguments: FourBitCode.allCases, [32, 64, 256])
    func likeTheTwin(_ code: FourBitCode, _ blockSize: Int) throws {
      var random = Random(77)
      let format = try #require(FourBitFormat(code: code, blockSize: blockSize))
      var cases = [Case(count: 1), Case(count: 18 * blockSize - 1, columns: 77, kind: .positive, isNested: false)]
      if blockSize == 32 {
        cases += [Case(count: 258 * 32 + 31, columns: 64)]
        cases += [true, false].map { Case(count: 19 * 32, kind: .maximum, isNested: $0) }
        cases += [-149, -133, -9, 126].flatMap { exponent in
          [true, false].map { Case(count: 32 + 3, type: .f32, exponent: exponent, columns: 1, isNested: $0) }
        }
        cases += [
          Case(count: 99, type: .f16, exponent: -20), Case(count: 99, type: .f16, exponent: 15, isNested: false),
        ]
      }
      for each in cases {
        let values = Self.values(each.count, each.type, about: each.exponent, &random)
        let weights = each.columns.flatMap { columns in
          ColumnWeights(
            (0..<columns).map { $0 % 5 == 1 ? 0 : Float(random.normal().magnitude) + 0.01 }, blockSize: blockSize)
        }
        let search = FourBitSearch(each.kind, weights: weights)
        let expected = try format.searched(values, search, isNested: each.isNested, column: 13, byReference: true)
        for target in Target.all {
          let found = try Target.with(target) {
            try format.searched(values, search, isNested: each.isNested, column: 13)
          }
          #expect(found == expected, "\(each), \(KernelTarget.names[target])")
        }
      }
    }

    /// The shares of bitsandbytes' error that the search is for, and no block worse.
    @Test func errors() throws {
      var random = Random(5)
      let format = try #require(FourBitFormat(code: .nf4))
      func normals(_ count: Int) -> [Double] {
        (0..<count).map { _ in
          (-2 * log(Double.random(in: 0x1p-60..<1, using: &random))).squareRoot()
            * cos(2 * .pi * Double.random(in: 0..<1, using: &random))
        }
      }
      let normal = normals(1 << 16)
      // Student's t of five degrees of freedom.
      let heavy = normals(1 << 15).map { value in
        value / (normals(5).reduce(0.0) { $0 + $1 * $1 } / 5).squareRoot()
      }
      for (name, numbers, signed, positive) in [("normal", normal, 0.82, 0.865), ("t5", heavy, 0.86, 0.905)] {
        let values = Values(numbers, as: .f32)
        let plain = try format.plainError(values, numbers)
        for (kind, bound) in [(FourBitSearch.Kind.signed, signed), (.positive, positive)] {
          for isNested in [true, false] {
            let found = try format.searched(values, FourBitSearch(kind), isNested: isNested)
            let share = format.relativeError(numbers, found) / plain
            #expect(share <= bound, "\(name), \(kind), nested \(isNested): \(share)")
          }
        }
      }
    }

    /// Scales that are relative to what is given, one of them to nothing; each block as if alone.
    @Test func givenGroups() throws {
      var random = Random(3)
      let format = try #require(FourBitFormat(code: .nf4, blockSize: 32))
      let values = (0..<33 * 32).map { _ in Float(random.normal()) }
      let given = (0..<33).map { $0 == 7 ? 0 : Float(2 + 3 * random.normal().magnitude) }
      let weights = try #require(ColumnWeights((0..<96).map { Float($0 % 7) + 0.1 }, blockSize: 32))
      let map = DoubleQuantization.map
      for kind in FourBitSearch.Kind.allCases {
        let found = Target.all.map { target in
          Target.with(target) {
            format.storedScales(values, search: FourBitSearch(kind, weights: weights), column: 32, given: given)
          }
        }
        for other in found { #expect(other == found[0]) }
        for block in 0..<33 where block != 7 {
          let largest = values[block * 32..<(block + 1) * 32].reduce(0) { max($0, $1.magnitude) }
          let scale = map[Int(found[0][block])] * given[block]
          // As far as the map reaches and its steps allow.
          let reachable = min(1.12 * largest, given[block])
          #expect(scale.magnitude <= reachable * 1.05 && scale.magnitude >= min(0.7 * largest, 0.9 * given[block]))
          if kind != .signed { #expect(scale > 0) }
        }
      }
    }

    @Test(arguments: FourBitCode.allCases)
    func feedbackLikeTheTwin(_ code: FourBitCode) throws {
      var random = Random(9)
      let format = try #require(FourBitFormat(code: code, blockSize: 32))
      let (rows, columns, first, count) = (48, 70, 32, 32)
      let matrix = (0..<rows * columns).map { _ in Float(random.normal()) }
      let factor = (0..<columns * columns).map { $0 % columns == $0 / columns ? 2 : Float(random.normal()) * 0.1 }
      let scales = (0..<rows).map { $0 == 5 ? 0 : Float(random.normal()) * 2 }
      func run(_ body: (inout [Float], inout [UInt8], inout [Float]) -> Void) -> ([Float], [UInt8], [Float]) {
        var matrix = matrix
        var codes = [UInt8](repeating: 99, count: rows * count)
        var errors = [Float](repeating: -1, count: rows * count)
        body(&matrix, &codes, &errors)
        return (matrix, codes, errors)
      }
      let expected = run { matrix, codes, errors in
        Reference.feedback(
          &matrix, rows: rows, first: first, count: count, factor: factor, scales: scales, code: code, codes: &codes,
          errors: &errors)
      }
      for target in Target.all {
        let found = Target.with(target) {
          run { matrix, codes, errors in
            format.feedback(
              &matrix, rows: rows, first: first, count: count, factor: factor, scales: scales, codes: &codes,
              errors: &errors)
          }
        }
        #expect(found == expected, "\(KernelTarget.names[target])")
      }
    }

    @Test(arguments: Target.all)
    func notFinite(_ target: Int) throws {
      let format = try #require(FourBitFormat(code: .nf4))
      for (index, value) in [
        (0, Double.nan), (63, .infinity), (64, -.infinity), (1000, .nan), (1023, .nan), (1030, .nan),
      ] {
        var numbers = [Double](repeating: 0.5, count: 1031)
        numbers[index] = value
        for type in FloatType.allCases {
          #expect(throws: NonFinite(index: index, value: Float(value))) {
            try Target.with(target) {
              try format.searched(Values(numbers, as: type), FourBitSearch(), isNested: index % 2 == 0)
            }
          }
        }
      }
    }

    @Test func weightsOfColumns() {
      #expect(ColumnWeights([], blockSize: 64) == nil)
      #expect(ColumnWeights([0, 0], blockSize: 64) == nil)
      #expect(ColumnWeights([1, -1], blockSize: 64) == nil)
      #expect(ColumnWeights([1, .nan], blockSize: 64) == nil)
      #expect(ColumnWeights([1, .infinity], blockSize: 64) == nil)
      #expect(ColumnWeights([1, 3], blockSize: 2)?.columns == 2)
    }
  }
}

extension FourBitFormat {
  /// That of bitsandbytes' own quantization with double quantization.
  fileprivate func plainError(_ values: Values, _ numbers: [Double]) throws -> Double {
    let blocks = blockCount(values.count)
    var codes = [UInt8](repeating: 0, count: packedByteCount(values.count))
    var absmax = [Float](repeating: 0, count: blocks)
    try values.withBytes { bytes in
      try codes.withUnsafeMutableBytes { codes in
        try absmax.withUnsafeMutableBufferPointer { absmax in
          try quantize(bytes, as: values.type, codes: codes, absmax: absmax)
        }
      }
    }
    let nested = NestedAbsmax(absmax.span)
    for block in 0..<blocks {
      let scaled =
        DoubleQuantization.map[Int(nested.codes[block])] * nested.absmax[block / DoubleQuantization.blockSize]
      absmax[block] = scaled + nested.offset
    }
    return relativeError(numbers, Searched(codes: codes, scales: absmax.map(\.bitPattern), scaleCodes: []))
  }
}
