import Testing

@testable import Quantization

struct DifferenceCase: Sendable, CustomTestStringConvertible {
  var target: Int
  var a: RealType
  var b: RealType
  var testDescription: String { "\(a.rawValue) and \(b.rawValue) on \(KernelTarget.names[target])" }

  static let all = Target.all.flatMap { target in
    RealType.allCases.flatMap { a in RealType.allCases.map { DifferenceCase(target: target, a: a, b: $0) } }
  }
}

/// Values rounded to a type, as bytes at an odd address.
private struct RealValues {
  var type: RealType
  var bytes: [UInt8]

  init(_ values: [Double], as type: RealType) {
    self.type = type
    bytes =
      [0]
      + (type.narrow.map { Values(values, as: $0).bytes }
        ?? values.flatMap { value in (0..<8).map { UInt8(truncatingIfNeeded: value.bitPattern >> (8 * $0)) } })
  }

  /// From the bit pattern of each value.
  init(patterns: [UInt64], as type: RealType) {
    self.type = type
    bytes = [0] + patterns.flatMap { bits in (0..<type.byteCount).map { UInt8(truncatingIfNeeded: bits >> (8 * $0)) } }
  }

  func withBytes<T>(_ body: (UnsafeRawBufferPointer) -> T) -> T {
    bytes.withUnsafeBytes { body(UnsafeRawBufferPointer(rebasing: $0.dropFirst())) }
  }
}

private func difference(_ a: RealValues, _ b: RealValues) -> ValueDifference {
  a.withBytes { left in
    b.withBytes { right in
      var found = ValueDifference()
      found.add(left, as: a.type, right, as: b.type)
      return found
    }
  }
}

private func reference(_ a: RealValues, _ b: RealValues) -> ValueDifference {
  a.withBytes { left in b.withBytes { Reference.difference(left, as: a.type, $0, as: b.type) } }
}

extension KernelTests {
  @Suite struct Difference {
    @Test(arguments: DifferenceCase.all)
    func agreesWithReference(_ c: DifferenceCase) {
      var random = Random(15)
      let special: [Double] = [.nan, -.nan, .infinity, -.infinity, 0, -0.0]
      for count in [0, 1, 7, 8, 9, 15, 17, 511, 512, 513, 1500] {
        var a: [Double] = []
        var b: [Double] = []
        for _ in 0..<count {
          let value = random.next() % 20 == 0 ? special.randomElement(using: &random) ?? 0 : random.normal()
          a.append(value)
          switch random.next() % 8 {
          case 0: b.append(special.randomElement(using: &random) ?? 0)
          case 1: b.append(random.normal() * 1000)
          case 2: b.append(value * (1 + random.normal() / 1_000_000))
          default: b.append(value)
          }
        }
        let left = RealValues(a, as: c.a)
        let right = RealValues(b, as: c.b)
        let found = Target.with(c.target) { difference(left, right) }
        #expect(found == reference(left, right), "\(count) values")
      }
    }

    /// Any bits at all, among them signalling NaN, subnormal numbers and the largest ones.
    @Test(arguments: DifferenceCase.all)
    func anyBits(_ c: DifferenceCase) {
      var random = Random(16)
      let a = (0..<3000).map { _ in random.next() }
      let b = a.map { random.next() % 2 == 0 ? $0 : random.next() }
      let left = RealValues(patterns: a, as: c.a)
      let right = RealValues(patterns: b, as: c.b)
      #expect(Target.with(c.target) { difference(left, right) } == reference(left, right))
      let same = Target.with(c.target) { difference(left, left) }
      #expect(same == reference(left, left))
      #expect((same.differing, same.undefined, same.largest, same.sumOfSquares) == (0, 0, 0, 0))
    }

    @Test(arguments: Target.all)
    func byHand(target: Int) {
      func compare(_ a: [Double], _ aType: RealType, _ b: [Double], _ bType: RealType) -> ValueDifference {
        Target.with(target) { difference(RealValues(a, as: aType), RealValues(b, as: bType)) }
      }
      let d = compare([3, 4, 0, -0.0, 1], .bf16, [3, 4.5, -0.0, 0, -1], .f32)
      #expect((d.count, d.differing, d.undefined, d.largest) == (5, 2, 0, 2))
      #expect((d.sumOfSquares, d.referenceSumOfSquares) == (4.25, 26))
      #expect(d.relative == 4.25.squareRoot() / 26.0.squareRoot() && d.largestDistance == 2)
      // What is infinite on both sides is equal; what is not a number on one has no distance.
      let infinite = compare([.infinity, 1, .nan], .f16, [.infinity, 1, .nan], .bf16)
      #expect((infinite.differing, infinite.relative, infinite.referenceSumOfSquares) == (0, 0, 1))
      let undefined = compare([.infinity, 1, .nan], .f32, [-.infinity, 2, 0], .f64)
      #expect((undefined.differing, undefined.undefined, undefined.largest) == (3, 2, 1))
      #expect(undefined.relative == nil && undefined.largestDistance == nil)
      #expect(compare([0, 0], .f32, [0, 1], .f32).relative == .infinity)
      #expect(compare([], .f32, [], .bf16) == ValueDifference())
      let largest = Double.greatestFiniteMagnitude
      let beyond = compare([largest], .f64, [-largest], .f64)
      #expect(beyond.largest == .infinity && beyond.relative == nil && beyond.undefined == 0)
      let far = compare([Double(Float.greatestFiniteMagnitude)], .f32, [-Double(Float.greatestFiniteMagnitude)], .f32)
      #expect(far.relative == 2 && far.largest == 2 * Double(Float.greatestFiniteMagnitude))
      var sum = d
      sum.merge(undefined)
      #expect((sum.count, sum.differing, sum.undefined, sum.largest) == (8, 5, 2, 2))
    }
  }
}
