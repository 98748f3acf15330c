import Testing

@testable import Adapters

@Suite struct LowRankFactorsTests {
  /// Rows of s·B·A and of its transpose against three loops.
  @Test(arguments: [
    LowRankFactors.Shape(rank: 1, inputs: 1, outputs: 1), LowRankFactors.Shape(rank: 3, inputs: 5, outputs: 7),
    LowRankFactors.Shape(rank: 9, inputs: 2, outputs: 33),
    LowRankFactors.Shape(experts: 4, rank: 2, inputs: 6, outputs: 5),
  ])
  func multiply(_ shape: LowRankFactors.Shape) throws {
    try LowRankFactors.checkLibrary()
    let a = wholeNumbers(shape.experts * shape.rank * shape.inputs, seed: 1)
    let b = wholeNumbers(shape.experts * shape.rank * shape.outputs, seed: 2)
    let factors = LowRankFactors(shape, a: a, b: b)
    #expect(factors.byteCount == 4 * (a.count + b.count))
    for expert in 0..<shape.experts {
      func product(_ output: Int, _ input: Int) -> Float {
        (0..<shape.rank).reduce(0) { sum, k in
          sum + b[(expert * shape.outputs + output) * shape.rank + k]
            * a[(expert * shape.rank + k) * shape.inputs + input]
        }
      }
      for isTransposed in [false, true] {
        let (rows, columns) = isTransposed ? (shape.inputs, shape.outputs) : (shape.outputs, shape.inputs)
        for range in [0..<rows, rows - 1..<rows, 0..<1] {
          for adding in [false, true] {
            var delta = [Float](repeating: adding ? 7 : .nan, count: range.count * columns)
            var room = delta.mutableSpan
            factors.multiply(
              expert: expert, rows: range, isTransposed: isTransposed, scale: 0.5, adding: adding, into: &room)
            let expected = range.flatMap { row in
              (0..<columns).map { column in
                (adding ? 7 : 0) + 0.5 * (isTransposed ? product(column, row) : product(row, column))
              }
            }
            #expect(delta == expected, "expert \(expert), rows \(range), transposed \(isTransposed), adding \(adding)")
          }
        }
      }
    }
  }
}
