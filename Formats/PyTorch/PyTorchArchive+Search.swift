extension PyTorchArchive {
  /// Whether a tensor is anywhere in a value of the graph.
  ///
  /// - Parameter seen: values without one, which are not looked at again however often they occur.
  func holdsTensor(_ reference: PickleGraph.Reference, seen: inout Set<PickleGraph.Reference>) -> Bool {
    var rest = [reference]
    while let next = rest.popLast() {
      guard seen.insert(next).inserted else { continue }
      if isTensor(next) { return true }
      rest += parts(of: next)
    }
    return false
  }

  /// The values that one consists of.
  private func parts(of reference: PickleGraph.Reference) -> [PickleGraph.Reference] {
    switch graph.value(reference) {
    case .tuple(let items), .list(let items), .set(let items): items
    case .dictionary(let pairs): pairs.flatMap { [$0.key, $0.value] }
    case .call(_, let arguments), .object(_, let arguments):
      [arguments] + [graph.state(reference), graph.keywords(reference)].compactMap(\.self)
        + graph.appended(reference) + graph.entries(reference).flatMap { [$0.key, $0.value] }
    case .none, .boolean, .integer, .longInteger, .real, .legacyMagic, .text, .bytes, .name, .persistent: []
    }
  }
}
