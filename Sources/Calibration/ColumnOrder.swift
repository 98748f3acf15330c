/// The order in which columns are quantized where errors are made good in those behind.
public enum ColumnOrder: String, Sendable, CaseIterable {
  /// What is multiplied with the largest inputs first: its errors are made good by all others, and what comes last, whose
  /// errors stay, counts least. Blocks keep together, as the scale of one is found when its turn comes; nothing of it shows
  /// in the file.
  case activation
  /// From the first column to the last.
  case stored

  /// - Parameters:
  ///   - means: the mean square of what each column is multiplied with.
  ///   - blockSize: columns that share a scale; the number of columns is a multiple of it.
  /// - Returns: the column at each place.
  package func columns(_ means: [Float], blockSize: Int) -> [Int] {
    guard self == .activation, blockSize > 0, means.count % blockSize == 0 else { return Array(means.indices) }
    let blocks = stride(from: 0, to: means.count, by: blockSize).map { $0..<$0 + blockSize }
    let sums = blocks.map { block in block.reduce(0.0) { $0 + Double(means[$1]) } }
    return blocks.indices.sorted { (sums[$1], $0) < (sums[$0], $1) }.flatMap { block in
      blocks[block].sorted { (means[$1], $0) < (means[$0], $1) }
    }
  }
}

/// How the factor of an input's correlations is made.
public struct FactorSettings: Sendable, Equatable {
  public var order = ColumnOrder.activation
  /// What is added to the diagonal, relative to its mean.
  public var damping = 0.01

  public init() {}
}
