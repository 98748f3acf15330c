extension Range<Int> {
  /// The first number that is not before what is looked for; the end of the range when all are.
  ///
  /// - Parameter isBefore: true up to some number, false from it on.
  package func partition(_ isBefore: (Int) -> Bool) -> Int {
    var (low, high) = (lowerBound, upperBound)
    while low < high {
      let middle = low + (high - low) / 2
      if isBefore(middle) { low = middle + 1 } else { high = middle }
    }
    return low
  }
}
