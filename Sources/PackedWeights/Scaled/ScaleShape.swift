import Bytes
import Tensors

/// The shape of a weight and that of its scales: which elements share one.
struct ScaleShape {
  private let leading: [Int]
  private let rows: Int
  private let columns: Int
  private let scales: [Int]

  /// - Parameter weight: of two dimensions at least, of which the first are those of a stack.
  init(_ weight: [Int], _ scales: [Int]) {
    leading = Array(weight.dropLast(2))
    rows = weight.dropLast().last ?? 1
    columns = weight.last ?? 1
    self.scales = scales
  }

  private static func count(_ size: Int, by block: Int) -> Int { size / block + (size % block > 0 ? 1 : 0) }

  private func expected(_ block: (rows: Int, columns: Int)) -> [Int] {
    leading + [Self.count(rows, by: block.rows), Self.count(columns, by: block.columns)]
  }

  private var isForRows: Bool { scales == leading + [rows, 1] || scales == leading + [rows] }
  private var isForAll: Bool {
    scales == leading + [1, 1] || scales == leading && !leading.isEmpty
      || leading.isEmpty && (scales.isEmpty || scales == [1])
  }

  /// - Parameters:
  ///   - block: elements of a column and of a row that may share a scale; the last of a matrix may be smaller.
  ///   - isBlockStated: whether scales of rows, or of the whole, are none of these.
  /// - Throws: `malformed` for scales of another shape.
  func grid(
    _ index: Int, _ storage: ScaleGrid.Storage, block: (rows: Int, columns: Int)?, isBlockStated: Bool, suffix: String
  ) throws(Failure) -> ScaleGrid {
    if let block, scales == expected(block) {
      return ScaleGrid(
        index: index, storage: storage, blockRows: block.rows, blockColumns: block.columns,
        rows: Self.count(rows, by: block.rows), columns: Self.count(columns, by: block.columns))
    }
    if block == nil || !isBlockStated {
      if isForAll {
        return ScaleGrid(
          index: index, storage: storage, blockRows: max(1, rows), blockColumns: max(1, columns), rows: 1, columns: 1)
      }
      if isForRows {
        return ScaleGrid(
          index: index, storage: storage, blockRows: 1, blockColumns: max(1, columns), rows: rows, columns: 1)
      }
    }
    let needed =
      block.map { "\(expected($0)) for blocks of \($0.rows) × \($0.columns)" }
      ?? "\(leading + [rows, 1]) or \(leading + [1, 1]), as config.json names no blocks"
    throw Failure(.malformed, "'\(suffix)' has shape \(scales), needed is \(needed)")
  }
}
