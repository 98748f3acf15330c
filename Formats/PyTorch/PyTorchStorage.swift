import Bytes

/// Elements of one type that tensors are views of, as a persistent identifier in the pickle describes it.
struct PyTorchStorage {
  /// Decimal digits.
  let key: String
  let type: ScalarType
  /// In elements; in bytes when it has no type.
  let count: Int
  let byteCount: Int
  /// On the device `meta`: there are no data.
  let isMeta: Bool

  /// - Throws: `malformed` when it is none; `unsupported` for a class of storages that is not known.
  init(_ reference: PickleGraph.Reference, in graph: PickleGraph) throws(Failure) {
    guard let fields = graph.items(reference), (5...6).contains(fields.count), graph.text(fields[0]) == "storage",
      let name = graph.name(fields[1]), let key = graph.text(fields[2]), let location = graph.text(fields[3]),
      let count = graph.integer(fields[4])
    else { throw Failure(.malformed, "a reference to what lies outside the pickle is not to a storage") }
    guard !key.isEmpty, key.utf8.count <= 32, key.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else {
      throw Failure(.malformed, "a storage has the key '\(key.printable(limit: 64))', expected decimal digits")
    }
    guard let type = ScalarType(storage: name) else {
      throw Failure(.unsupported, "storage \(key) is a '\(name.printable(limit: 128))', which is not known")
    }
    if fields.count == 6, graph[fields[5]].kind != .none {
      throw Failure(.unsupported, "storage \(key) is a view of another; save the file again with a current PyTorch")
    }
    let (bytes, overflowed) = count.multipliedReportingOverflow(by: type.width)
    guard count >= 0, !overflowed else { throw Failure(.malformed, "storage \(key) has \(count) elements") }
    self.key = key
    self.type = type
    self.count = count
    byteCount = bytes
    isMeta = location == "meta"
  }
}

/// The storages that a pickle refers to, each once.
struct PyTorchStorages {
  private(set) var list: [PyTorchStorage] = []
  /// Position in `list`, and what it was for each place in the pickle that refers to one.
  private var positions: [String: Int] = [:]
  private var ofReference: [PickleGraph.Reference: Int] = [:]
  /// Where each one's data begins in the file; nil for one without any.
  private(set) var starts: [Int?] = []

  init(_ graph: PickleGraph) throws(Failure) {
    for (index, node) in graph.nodes.enumerated() where node.kind == .persistent {
      let storage = try PyTorchStorage(PickleGraph.Reference(index: node.a), in: graph)
      let reference = PickleGraph.Reference(index: Int32(index))
      guard let known = positions[storage.key] else {
        positions[storage.key] = list.count
        ofReference[reference] = list.count
        list.append(storage)
        continue
      }
      guard list[known].type == storage.type, list[known].count == storage.count,
        list[known].isMeta == storage.isMeta
      else {
        throw Failure(.malformed, "storage \(storage.key) is described in two ways: by type, size or device")
      }
      ofReference[reference] = known
    }
    starts = Array(repeating: nil, count: list.count)
  }

  func position(of key: String) -> Int? { positions[key] }

  func position(of reference: PickleGraph.Reference) -> Int? { ofReference[reference] }

  mutating func place(_ position: Int, at offset: Int) { starts[position] = offset }
}
