import Testing

@testable import Quantization

private struct Nested: Equatable {
  var codes: [UInt8]
  var nestedAbsmax: [UInt32]

  init(_ absmax: [Float], offset: Float, byReference: Bool = false) {
    let blocks = DoubleQuantization.blockCount(absmax.count)
    var codes = [UInt8](repeating: 0xA5, count: absmax.count + 32)
    var nested = [Float](repeating: -77, count: blocks + 1)
    absmax.withUnsafeBufferPointer { absmax in
      codes.withUnsafeMutableBufferPointer { codes in
        nested.withUnsafeMutableBufferPointer { nested in
          if byReference {
            Reference.quantizeAbsmax(absmax, offset: offset, codes: codes, nestedAbsmax: nested)
          } else {
            DoubleQuantization.quantize(absmax, offset: offset, codes: codes, nestedAbsmax: nested)
          }
        }
      }
    }
    self.codes = codes
    nestedAbsmax = nested.map(\.bitPattern)
  }
}

private func offset(_ absmax: [Float]) -> Float {
  absmax.withUnsafeBufferPointer { DoubleQuantization.offset($0) }
}

extension KernelTests {
  @Suite struct DoubleQuantize {
    @Test(arguments: Target.all)
    func agreesWithReference(target: Int) {
      var random = Random(13)
      for count in [0, 1, 15, 16, 17, 255, 256, 257, 1000] {
        for scale in [1, 1e-3, 1e-40, 1e30] {
          let absmax = (0..<count).map { _ in Float(abs(random.normal()) * scale) }
          for offset in [offset(absmax), 0, absmax.first ?? 1] {
            let found = Target.with(target) { Nested(absmax, offset: offset) }
            #expect(found == Nested(absmax, offset: offset, byReference: true), "\(count) around \(scale)")
          }
        }
      }
    }

    /// Every value between -1 and 1 that falls on a step of bitsandbytes' table, or next to one.
    @Test(arguments: Target.all)
    func everyStep(target: Int) {
      for first in stride(from: target, to: 65536, by: 3 * 127) {
        var absmax: [Float] = [1]
        for position in first..<min(first + 127, 65536) {
          let edge = (Float(position) - 0.5) / 65535 * 2 - 1
          absmax += [edge, edge.nextUp]
        }
        let found = Target.with(target) { Nested(absmax, offset: 0) }
        #expect(found == Nested(absmax, offset: 0, byReference: true))
      }
    }
  }
}

@Suite struct OffsetTests {
  @Test func isTheRoundedMean() {
    #expect(offset([]) == 0)
    #expect(offset([3]) == 3)
    #expect(offset([1, 2, 3, 4, 5, 7]) == Float(22.0 / 6))
    // In 32 bits the sum would stop growing at 2^24.
    #expect(offset([Float](repeating: 1, count: 1 << 24 + 3)) == 1)
    #expect(offset([1e30, 1, 1e30]) == 2e30 / 3)
  }
}

@Suite struct DynamicMapTests {
  @Test func shape() {
    let map = DoubleQuantization.map
    #expect(map.count == 256)
    #expect(map[127] == 0 && map[255] == 1)
    #expect(zip(map, map.dropFirst()).allSatisfy { $0 < $1 })
    for index in 1..<128 { #expect(map[127 - index] == -map[127 + index]) }
  }

  /// The other one is held to what torch computes without FMA in Tests/Interop.
  @Test func roundedProducts() {
    let (map, other) = (DoubleQuantization.map, DoubleQuantization.mapOfProductsRounded)
    let differences = zip(map, other).filter { $0 != $1 }
    #expect(differences.count == 42 && differences.allSatisfy { ($0 - $1).magnitude <= 2 * $0.ulp })
  }
}
