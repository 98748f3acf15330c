extension Int {
  /// For totals of what headers say, which sparse files may carry beyond any real size.
  package func addingSaturated(_ other: Int) -> Int {
    let (sum, overflow) = addingReportingOverflow(other)
    return overflow ? .max : sum
  }

  package func multipliedSaturated(by other: Int) -> Int {
    let (product, overflow) = multipliedReportingOverflow(by: other)
    return overflow ? (self < 0) == (other < 0) ? .max : .min : product
  }

  /// `self · count / whole`, rounded down.
  ///
  /// - Parameters:
  ///   - count: from 0 to `whole`.
  ///   - whole: at least 1.
  package func proportion(_ count: Int, of whole: Int) -> Int {
    let (high, low) = magnitude.multipliedFullWidth(by: count.magnitude)
    return Int(whole.magnitude.dividingFullWidth((high, low)).quotient)
  }

  /// The share of a range of `0..<whole`, so that the shares of ranges that cover it add up to `self`.
  package func part(_ range: Range<Int>, of whole: Int) -> Int {
    guard whole > 0 else { return 0 }
    return proportion(range.upperBound, of: whole) - proportion(range.lowerBound, of: whole)
  }
}
