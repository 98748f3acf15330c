import Quantization
import Tensors
import Testing

@testable import Comparison

/// Elements that are compared as whole numbers or bit by bit.
@Suite struct StoredDifferenceTests {
  private func difference(_ a: [UInt8], _ b: [UInt8], as type: ElementType) -> ValueDifference {
    var found = ValueDifference()
    found.add(a.span.bytes, b.span.bytes, as: type)
    return found
  }

  @Test(arguments: ElementType.allCases)
  func countsElements(_ type: ElementType) {
    // 24 bytes are whole elements of every type.
    let a = [UInt8](repeating: 0, count: 24)
    let count = 24 * 8 / type.bitWidth
    #expect(difference(a, a, as: type).count == count && difference(a, a, as: type).differing == 0)
    for element in 0..<count {
      var b = a
      let bit = (element + 1) * type.bitWidth - 1
      b[bit / 8] |= 1 << UInt8(bit % 8)
      let found = difference(a, b, as: type)
      #expect(found.count == count && found.differing == 1, "element \(element)")
    }
    let all = difference(a, [UInt8](repeating: 255, count: 24), as: type)
    #expect(all.differing == count)
  }

  @Test func numbers() {
    let signed = difference([0x80, 5, 0xFF], [0x7F, 2, 0xFF], as: .i8)
    #expect(signed.differing == 2 && signed.largest == 255 && signed.undefined == 0)
    #expect(signed.sumOfSquares == 65_034 && signed.referenceSumOfSquares == 16_410)
    #expect(difference([0xFF, 0xFF], [0, 0], as: .u16).largest == 65535)
    // Neighbours that no double tells apart.
    let close = difference([0, 0, 0, 0, 0, 0, 0, 0x40], [1, 0, 0, 0, 0, 0, 0, 0x40], as: .i64)
    #expect(close.differing == 1 && close.largest == 1)
    let far = difference([0, 0, 0, 0, 0, 0, 0, 0x80], [255, 255, 255, 255, 255, 255, 255, 0x7F], as: .i64)
    #expect(far.largest == 0x1p64)
  }

  @Test func patterns() {
    let found = difference([0, 1], [1, 1], as: .bool)
    #expect((found.differing, found.undefined) == (1, 1))
    #expect(found.relative == nil && found.largestDistance == nil)
    #expect(difference([0x12, 0x34], [0x13, 0x44], as: .f4).differing == 2)
    // Elements 1 and 2 of four lie across the borders of bytes.
    #expect(difference([0, 0, 0], [0b0100_0000, 0b0001_0000, 0], as: .f6e2m3).differing == 2)
  }
}
