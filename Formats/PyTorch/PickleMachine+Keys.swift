import Bytes

// A key that a dictionary has twice: which of the two counts would depend on the reader.
extension PickleMachine {
  private typealias Node = PickleGraph.Node

  /// - Throws: `malformed` when two keys of a dictionary are the same text, number or constant, or the same object.
  func checkKeys() throws(Failure) {
    let groups = textGroups()
    for node in graph.nodes where node.kind == .dictionary && node.c > 2 { try check(node, groups) }
    for addition in graph.additions where addition.pairs.c > 2 { try check(addition.pairs, groups) }
  }

  private func check(_ node: Node, _ groups: [Int32]) throws(Failure) {
    var keys: [(group: UInt64, kind: UInt8, key: Int32)] = []
    keys.reserveCapacity(Int(node.c) / 2)
    var next = node.a
    var isKey = true
    while next >= 0 {
      let cell = graph.cells[Int(next)]
      if isKey { keys.append(identity(of: cell.value, groups)) }
      isKey.toggle()
      next = cell.next
    }
    keys.sort { ($0.kind, $0.group) < ($1.kind, $1.group) }
    for (left, right) in zip(keys, keys.dropFirst()) where left.kind == right.kind && left.group == right.group {
      let key = graph.nodes[Int(right.key)]
      let isText = key.kind == .text || key.kind == .latinText
      let text = graph.text(.init(index: right.key)) ?? graph.integer(.init(index: right.key)).map { "\($0)" } ?? ""
      throw Failure(
        .malformed, "key '\(text.printable(limit: 512))' occurs twice in one dictionary",
        offset: isText ? graph.baseOffset + Int(key.a) : graph.baseOffset)
    }
  }

  /// What is the same for two keys that are: of texts a number given to each, of integers their value.
  private func identity(of key: Int32, _ groups: [Int32]) -> (group: UInt64, kind: UInt8, key: Int32) {
    let node = graph.nodes[Int(key)]
    switch node.kind {
    case .text, .latinText: return (UInt64(groups[Int(key)]), PickleGraph.Kind.text.rawValue, key)
    case .integer, .real, .boolean:
      let bits = UInt64(UInt32(bitPattern: node.b)) << 32 | UInt64(UInt32(bitPattern: node.a))
      return (bits, node.kind.rawValue, key)
    default: return (UInt64(key), PickleGraph.Kind.object.rawValue, key)
    }
  }

  /// For each text that is a key, the position of one that is equal, the same for all that are equal.
  ///
  /// Texts are compared here once, not for each dictionary: a few long texts may be keys of very many.
  private func textGroups() -> [Int32] {
    var groups = [Int32](repeating: -1, count: graph.nodes.count)
    var texts: [(hash: Int, key: Int32)] = []
    func collect(_ node: Node) {
      var next = node.c > 2 ? node.a : -1
      var isKey = true
      while next >= 0 {
        let cell = graph.cells[Int(next)]
        let kind = graph.nodes[Int(cell.value)].kind
        if isKey, kind == .text || kind == .latinText, groups[Int(cell.value)] < 0 {
          groups[Int(cell.value)] = cell.value
          texts.append((hash(cell.value), cell.value))
        }
        isKey.toggle()
        next = cell.next
      }
    }
    for node in graph.nodes where node.kind == .dictionary { collect(node) }
    for addition in graph.additions { collect(addition.pairs) }
    texts.sort { left, right in
      left.hash != right.hash ? left.hash < right.hash : compare(left.key, right.key) < 0
    }
    for (left, right) in zip(texts, texts.dropFirst())
    where left.hash == right.hash && compare(left.key, right.key) == 0 {
      groups[Int(right.key)] = groups[Int(left.key)]
    }
    return groups
  }

  private func content(_ text: Int32) -> ArraySlice<UInt8> {
    let node = graph.nodes[Int(text)]
    return graph.bytes[Int(node.a)..<Int(node.a) + Int(node.b)]
  }

  private func hash(_ text: Int32) -> Int {
    var hasher = Hasher()
    unsafe content(text).withUnsafeBytes { unsafe hasher.combine(bytes: $0) }
    return hasher.finalize()
  }

  private func compare(_ left: Int32, _ right: Int32) -> Int {
    let (left, right) = (content(left), content(right))
    for (a, b) in zip(left, right) where a != b { return Int(a) - Int(b) }
    return left.count - right.count
  }
}
