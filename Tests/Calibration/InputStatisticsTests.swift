import Bytes
import TestSupport
import Testing

@testable import Calibration

@Suite struct InputStatisticsTests {
  private static let modules = #"{\"a.weight\": \"a\", \"b.weight\": \"a\", \"c.weight\": \"c\"}"#
  private static let metadata =
    #"{"format": "nibble-statistics", "version": "1", "modules": ""# + modules + #""}"#

  private static func floats(_ values: [Float]) -> [UInt8] {
    values.flatMap { value in (0..<4).map { UInt8(truncatingIfNeeded: value.bitPattern >> (8 * UInt32($0))) } }
  }

  private static func tensors(_ sums: [Float] = [4, 8], counts: [Float] = [2]) -> [SafetensorsBuilder.Tensor] {
    [
      .init("a.counts", "F32", [counts.count], floats(counts)), .init("a.sums", "F32", [sums.count], floats(sums)),
      .init("c.counts", "F32", [1], floats([0])), .init("c.sums", "F32", [1], floats([0])),
    ]
  }

  private static func open(
    _ tensors: [SafetensorsBuilder.Tensor], metadata: String? = metadata
  ) throws -> InputStatistics {
    let directory = try TemporaryDirectory()
    let path = try directory.write("x.stats", SafetensorsBuilder(tensors, metadata: metadata).bytes)
    return try InputStatistics(InputFile(path: path, name: "x.stats"))
  }

  /// Weights share inputs; a mean is the sum over the tokens; what no token reached is not known.
  @Test func means() throws {
    let statistics = try Self.open(Self.tensors())
    #expect(statistics.weightCount == 3)
    #expect(try statistics.means(for: "a.weight", columns: 2) == [2, 4])
    #expect(try statistics.means(for: "b.weight", columns: 2) == [2, 4])
    #expect(try statistics.means(for: "c.weight", columns: 1) == nil)
    #expect(try statistics.means(for: "d.weight", columns: 1) == nil)
    let failure = #expect(throws: Failure.self) { try statistics.means(for: "a.weight", columns: 3) }
    #expect(failure.map(\.description) == "x.stats: tensor 'a.weight': has 2 columns × 1, the model's weight has 3")
  }

  struct Row: Sendable, CustomTestStringConvertible {
    var testDescription: String
    var tensors = InputStatisticsTests.tensors()
    var metadata: String? = InputStatisticsTests.metadata
    var message: String
  }

  static let rows = [
    Row(testDescription: "no metadata", metadata: nil, message: "does not say nibble-statistics"),
    Row(
      testDescription: "other version", metadata: metadata.replacing(#""1""#, with: #""2""#), message: "is version '2'"),
    Row(
      testDescription: "no modules", metadata: #"{"format": "nibble-statistics", "version": "1"}"#,
      message: "no object of modules"),
    Row(
      testDescription: "empty modules", metadata: metadata.replacing(modules, with: "{}"),
      message: "has no measured weights"),
    Row(
      testDescription: "a number for an input", metadata: metadata.replacing(#"\"c\""#, with: "3"),
      message: "its input is no text"),
    Row(
      testDescription: "no such input", metadata: metadata.replacing(#"\"c\""#, with: #"\"d\""#),
      message: "there is no 'd.sums'"),
    Row(testDescription: "a negative sum", tensors: tensors([4, -1]), message: "is -1.0, allowed are sums of squares"),
    Row(testDescription: "a sum that is NaN", tensors: tensors([.nan, 1]), message: "allowed are sums of squares"),
    Row(testDescription: "an infinite sum", tensors: tensors([.infinity, 1]), message: "is inf, allowed"),
    Row(testDescription: "a negative count", tensors: tensors(counts: [-2]), message: "is -2.0, allowed are counts"),
    Row(testDescription: "a count that is NaN", tensors: tensors(counts: [.nan]), message: "allowed are counts"),
    Row(
      testDescription: "two counts", tensors: tensors(counts: [1, 2]), message: "is of shape [2], its counts of [2]"),
    Row(
      testDescription: "sums of another type",
      tensors: tensors().map { tensor in
        tensor.name == "a.sums" ? .init("a.sums", "I32", [2], tensor.data) : tensor
      }, message: "is I32, allowed is F32"),
    Row(
      testDescription: "no columns",
      tensors: tensors().map { tensor in tensor.name == "a.sums" ? .init("a.sums", "F32", [0], []) : tensor },
      message: "is of shape [0]"),
  ]

  @Test(arguments: rows)
  func refused(_ row: Row) {
    let failure = #expect(throws: Failure.self) { try Self.open(row.tensors, metadata: row.metadata) }
    #expect(failure?.file == "x.stats")
    #expect(failure?.message.contains(row.message) == true, "\(failure?.message ?? "")")
  }
}
