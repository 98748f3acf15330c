extension PickleGraph {
  public func value(_ reference: Reference) -> PickleValue {
    let node = self[reference]
    switch node.kind {
    case .none: return .none
    case .boolean: return .boolean(node.a != 0)
    case .integer: return .integer(integer(node))
    case .longInteger: return .longInteger(Array(bytes[Int(node.a)..<Int(node.a) + Int(node.b)]))
    case .real: return .real(Double(bitPattern: UInt64(bitPattern: Int64(integer(node)))))
    case .legacyMagic: return .legacyMagic
    case .text, .latinText: return .text(text(reference) ?? "")
    case .bytes: return .bytes(Array(bytes[Int(node.a)..<Int(node.a) + Int(node.b)]))
    case .tuple: return .tuple(items(reference) ?? [])
    case .list: return .list(items(reference) ?? [])
    case .set: return .set(items(reference) ?? [])
    case .dictionary: return .dictionary(pairs(reference) ?? [])
    case .name: return .name(name(reference) ?? "")
    case .call: return .call(function: Reference(index: node.a), arguments: Reference(index: node.b))
    case .object: return .object(type: Reference(index: node.a), arguments: Reference(index: node.b))
    case .persistent: return .persistent(Reference(index: node.a))
    }
  }

  // MARK: - One kind each; nil for a value of another

  public func integer(_ reference: Reference) -> Int? {
    let node = self[reference]
    return node.kind == .integer ? integer(node) : nil
  }

  public func text(_ reference: Reference) -> String? {
    let node = self[reference]
    let range = Int(node.a)..<Int(node.a) + Int(node.b)
    switch node.kind {
    case .text: return String(decoding: bytes[range], as: UTF8.self)
    case .latinText: return String(String.UnicodeScalarView(bytes[range].map { Unicode.Scalar($0) }))
    default: return nil
    }
  }

  /// `MODULE.NAME` of a function or class.
  public func name(_ reference: Reference) -> String? {
    let node = self[reference]
    guard node.kind == .name, let module = text(Reference(index: node.a)), let name = text(Reference(index: node.b))
    else { return nil }
    return module + "." + name
  }

  /// The elements of a tuple, list or set.
  public func items(_ reference: Reference) -> [Reference]? {
    let node = self[reference]
    switch node.kind {
    case .tuple: return children[Int(node.a)..<Int(node.a) + Int(node.b)].map { Reference(index: $0) }
    case .list, .set: return chain(node)
    default: return nil
    }
  }

  /// The keys and values of a dictionary, in the order written.
  public func pairs(_ reference: Reference) -> [(key: Reference, value: Reference)]? {
    let node = self[reference]
    return node.kind == .dictionary ? pairs(node) : nil
  }

  /// What a dictionary has under a key that is text.
  public func value(of key: String, in dictionary: Reference) -> Reference? {
    pairs(dictionary)?.first { text($0.key).map { $0.utf8.elementsEqual(key.utf8) } ?? false }?.value
  }

  /// The name of what would be called, and its arguments: of a call, and of an object.
  public func call(_ reference: Reference) -> (name: String, arguments: [Reference])? {
    let node = self[reference]
    guard node.kind == .call || node.kind == .object, let name = name(Reference(index: node.a)),
      let arguments = items(Reference(index: node.b))
    else { return nil }
    return (name, arguments)
  }

  /// What `BUILD` gave to a call or an object: as a rule a dictionary of its attributes.
  public func state(_ reference: Reference) -> Reference? {
    addition(reference).flatMap { $0.state < 0 ? nil : Reference(index: $0.state) }
  }

  /// The keyword arguments of an object.
  public func keywords(_ reference: Reference) -> Reference? {
    addition(reference).flatMap { $0.keywords < 0 ? nil : Reference(index: $0.keywords) }
  }

  /// What was appended to a call or an object, such as one of a class made from that of lists.
  public func appended(_ reference: Reference) -> [Reference] {
    addition(reference).map { chain($0.items) } ?? []
  }

  /// What a call or an object was given under keys, such as one of a class made from that of dictionaries.
  public func entries(_ reference: Reference) -> [(key: Reference, value: Reference)] {
    addition(reference).map { pairs($0.pairs) } ?? []
  }

  // MARK: - As they lie there

  private func integer(_ node: Node) -> Int {
    Int(node.b) << 32 | Int(UInt32(bitPattern: node.a))
  }

  func addition(_ reference: Reference) -> Addition? {
    let node = self[reference]
    guard node.kind == .call || node.kind == .object, node.c >= 0 else { return nil }
    return additions[Int(node.c)]
  }

  private func chain(_ node: Node) -> [Reference] {
    guard node.c > 0 else { return [] }
    var result: [Reference] = []
    result.reserveCapacity(Int(node.c))
    var next = node.a
    while next >= 0 {
      let cell = cells[Int(next)]
      result.append(Reference(index: cell.value))
      next = cell.next
    }
    return result
  }

  private func pairs(_ node: Node) -> [(key: Reference, value: Reference)] {
    let flat = chain(node)
    return stride(from: 0, to: flat.count - 1, by: 2).map { (flat[$0], flat[$0 + 1]) }
  }
}
