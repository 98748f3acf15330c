import Bytes

extension MergePlanner {
  /// Widens the shape of a factor that is stored as its blocks to that of the block-diagonal matrix.
  func spread(
    _ a: inout [Int], _ b: inout [Int], over blocks: AdapterConfiguration.BlockDiagonal, _ target: Target
  ) throws(Failure) {
    let adapter = adapters[target.adapter]
    func checkRows(_ rows: Int, _ tensor: Int?) throws(Failure) {
      if rows % blocks.count == 0 { return }
      throw adapter.failure("has \(rows) rows, not a multiple of \(blocks.count) blocks", tensor: tensor ?? 0)
    }
    switch blocks.side(of: target.module.path) {
    case .a:
      try checkRows(a[0], target.module.a)
      a[1] = product(a[1], blocks.count)
    case .b:
      try checkRows(b[0], target.module.b)
      b[1] = product(b[1], blocks.count)
    case .both:
      throw adapter.failure(
        "belongs to module '\(target.module.path)', which both target_modules_bd_a and target_modules_bd_b name",
        tensor: target.module.a ?? 0)
    case nil: break
    }
  }

  /// Patterns that a file of a megabyte can hold would take hours for the modules that it can hold. A pattern for
  /// each module, spelled out, is no such pattern.
  func checkPatterns(_ targets: [Target], _ adapter: Adapter) throws(Failure) {
    let states = adapter.configuration.patternStateCount
    let characters = targets.reduce(0) { $0 + $1.path.utf8.count }
    guard product(states, characters) > 100_000_000 else { return }
    throw Failure(
      .unsupported,
      "rank_pattern and alpha_pattern make \(states) states to follow through \(characters) characters of module paths; "
        + "spell the modules out", file: "\(adapter.path)/\(Adapter.configName)")
  }

  /// One that is too large fits nothing, and may be added to another.
  func product(_ count: Int, _ factor: Int) -> Int {
    let (product, overflow) = count.multipliedReportingOverflow(by: factor)
    return overflow ? Int.max / 2 : min(product, Int.max / 2)
  }
}
