import Quantization
import TestSupport
import Testing

@testable import Calibration

@Suite struct BlockFeedbackTests {
  private static let columns = 256

  private static func values(_ rows: Int) -> [Float] {
    var generator = SplitMix64(seed: 5)
    return (0..<rows * columns).map { _ in
      (0..<4).reduce(Float(0)) { sum, _ in sum + Float.random(in: -1...1, using: &generator) }
    }
  }

  /// The sum over rows of e·H·eᵀ, e what a row is away from its original.
  private static func loss(
    _ blocks: [UInt8], as type: BlockType, _ values: [Float], _ correlations: [Float]
  ) -> Double {
    let differences = zip(values, type.decoded(blocks)).map { Double($0) - Double($1) }
    var sum = 0.0
    for row in stride(from: 0, to: differences.count, by: columns) {
      for i in 0..<columns {
        var product = 0.0
        for j in 0..<columns { product += Double(correlations[i * columns + j]) * differences[row + j] }
        sum += product * differences[row + i]
      }
    }
    return sum
  }

  /// The products with such inputs lose a third at most of what they do by the encoder alone, whatever it weighs columns
  /// by.
  @Test(arguments: [BlockType.q4_0, .q8_0, .q4_K, .q5_K, .q6_K, .iq4_xs])
  func lessLoss(_ type: BlockType) throws {
    let columns = Self.columns
    let values = Self.values(9)
    let correlations = FeedbackTests.correlations(columns, samples: 500)
    let feedback = try #require(BlockFeedback(type, factor: InverseFactor(correlations, columns: columns)))
    let blocks = try feedback(values)
    #expect(blocks.count == type.byteCount(values.count))
    let made = Self.loss(blocks, as: type, values, correlations)
    let squares = (0..<columns).map { correlations[$0 * columns + $0] }
    for importance in [nil, squares] where importance == nil || type.importance != .unused {
      let plain = try type.blocks(values, rowLength: columns, importance: importance)
      #expect(made < 0.33 * Self.loss(plain, as: type, values, correlations))
    }
  }

  /// A row's blocks do not depend on the rows beside it, but for the order in which products are summed.
  @Test func rowsByThemselves() throws {
    let columns = Self.columns
    let values = Self.values(3)
    let correlations = FeedbackTests.correlations(columns, samples: 500)
    let feedback = try #require(BlockFeedback(.q4_K, factor: InverseFactor(correlations, columns: columns)))
    let whole = try feedback(values)
    // One block in a row: no product of matrices is in it.
    let size = BlockType.q4_K.bytesPerBlock
    for row in 0..<3 {
      let own = try feedback(Array(values[row * columns..<(row + 1) * columns]))
      #expect(own == Array(whole[row * size..<(row + 1) * size]))
    }
  }

  @Test func refused() throws {
    let factor = try InverseFactor(FeedbackTests.correlations(32, samples: 100), columns: 32)
    #expect(BlockFeedback(.q4_K, factor: factor) == nil)
    #expect(BlockFeedback(.mxfp4, factor: factor) == nil)
    let feedback = try #require(BlockFeedback(.q8_0, factor: factor))
    for value in [Float.nan, .infinity, -.infinity, 1e30] {
      var values = [Float](repeating: 0.5, count: 3 * 32)
      values[32] = value
      let refused = #expect(throws: NonFinite.self) { try feedback(values) }
      #expect(refused?.index == 32 && (refused?.value == value || value.isNaN))
    }
  }
}

extension BlockType {
  fileprivate func decoded(_ blocks: [UInt8]) -> [Float] {
    var values = [Float](repeating: 0, count: blocks.count / bytesPerBlock * valuesPerBlock)
    var room = values.mutableSpan
    decode(blocks.span.bytes, into: &room)
    return values
  }

  fileprivate func blocks(_ values: [Float], rowLength: Int, importance: [Float]?) throws -> [UInt8] {
    var blocks = [UInt8](repeating: 0, count: values.count / valuesPerBlock * bytesPerBlock)
    var span = blocks.mutableSpan
    var room = span.mutableBytes
    try encode(values.span, rowLength: rowLength, importance: importance?.span, into: &room)
    return blocks
  }
}
