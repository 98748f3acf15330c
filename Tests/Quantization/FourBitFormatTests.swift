import Testing

@testable import Quantization

@Suite struct FourBitFormatTests {
  @Test func blockSizes() {
    for size in -1...5000 {
      #expect((FourBitFormat(code: .nf4, blockSize: size) != nil) == FourBitFormat.blockSizes.contains(size))
    }
  }

  @Test(arguments: FourBitCode.allCases)
  func zeroCode(code: FourBitCode) {
    #expect(code.levels[Int(code.zeroCode)] == 0)
  }
}
