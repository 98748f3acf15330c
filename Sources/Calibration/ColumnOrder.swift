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
  ///   - blocks: columns that keep together: those of a block, and within it those of a group, each a multiple of the next
  ///     and the number of columns of the first. Nothing for the stored order.
  /// - Returns: the column at each place.
  package func columns(_ means: [Float], blocks: [Int]) -> [Int] {
    guard self == .activation, !blocks.isEmpty else { return Array(means.indices) }
    return Self.sorted(means.indices, means, blocks[...])
  }

  private static func sorted(_ range: Range<Int>, _ means: [Float], _ blocks: ArraySlice<Int>) -> [Int] {
    guard let size = blocks.first, size > 0, range.count % size == 0 else {
      return range.sorted { (means[$1], $0) < (means[$0], $1) }
    }
    let parts = stride(from: range.lowerBound, to: range.upperBound, by: size).map { $0..<$0 + size }
    let sums = parts.map { part in part.reduce(0.0) { $0 + Double(means[$1]) } }
    return parts.indices.sorted { (sums[$1], $0) < (sums[$0], $1) }
      .flatMap { sorted(parts[$0], means, blocks.dropFirst()) }
  }
}

/// How the factor of an input's correlations is made.
public struct FactorSettings: Sendable, Equatable {
  public var order = ColumnOrder.activation
  /// What is added to the diagonal, relative to its mean.
  public var damping = 0.01

  public init() {}
}
