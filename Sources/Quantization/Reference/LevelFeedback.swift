extension Reference {
  /// See `BlockLevels.feedback`.
  package static func feedback(
    _ matrix: inout [Float], rows: Int, first: Int, count: Int, factor: [Float], levels: BlockLevels, scales: [Float],
    minima: [Float], codes: inout [UInt8], errors: inout [Float]
  ) {
    let columns = matrix.count / rows
    for column in 0..<count {
      let line = (first + column) * columns + first
      let group = column / levels.groupSize * rows
      for row in 0..<rows {
        let (scale, minimum) = (scales[group + row], minima[group + row])
        let value = matrix[(first + column) * rows + row]
        let (level, code) = levels.nearest(to: scale == 0 ? 0 : (value + minimum) / scale)
        codes[column * rows + row] = code
        let error = (value - (level * scale - minimum)) / factor[line + column]
        errors[column * rows + row] = error
        for behind in column + 1..<max(count, column + 1) {
          matrix[(first + behind) * rows + row] -= factor[line + behind] * error
        }
      }
    }
  }
}

extension BlockLevels {
  /// Of two whole numbers the even one, of two in a table the lower one.
  fileprivate func nearest(to value: Float) -> (level: Float, code: UInt8) {
    if let table {
      let code = zip(table, table.dropFirst()).count { value > ($0 + $1) / 2 }
      return (table[code], UInt8(code))
    }
    let (low, high) = (Float(range.lowerBound), Float(range.upperBound))
    let level = min(value > low ? value : low, high).rounded(.toNearestOrEven)
    return (level, UInt8(Int(level) - range.lowerBound))
  }
}
