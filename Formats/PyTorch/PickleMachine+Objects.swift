import Bytes

// The instructions that put values together.
extension PickleMachine {
  private typealias Node = PickleGraph.Node

  mutating func assemble(_ opcode: PickleOpcode) throws(Failure) {
    switch opcode {
    case .emptyTuple: try push(PickleGraph.emptyTuple)
    case .tuple1: try tuple(last: 1)
    case .tuple2: try tuple(last: 2)
    case .tuple3: try tuple(last: 3)
    case .tuple: try tuple(popToMark())
    case .emptyList: try push(Node(kind: .list))
    case .append:
      let value = try pop()
      try extend(top(), with: [value], isPairs: false)
    case .appends:
      let values = try popToMark()
      try extend(top(), with: values, isPairs: false)
    case .emptyDictionary: try push(Node(kind: .dictionary))
    case .setItem:
      let value = try pop()
      let key = try pop()
      try extend(top(), with: [key, value], isPairs: true)
    case .setItems:
      let values = try popToMark()
      try extend(top(), with: values, isPairs: true)
    case .emptySet: try push(Node(kind: .set))
    case .addItems:
      let values = try popToMark()
      guard try graph.nodes[Int(top())].kind == .set else { throw Failure(.malformed, "ADDITEMS on no set") }
      try extend(top(), with: values, isPairs: false)
    case .frozenSet:
      let values = try popToMark()
      try push(Node(kind: .set))
      try extend(top(), with: values, isPairs: false)
    case .reduce: try reduce()
    case .newObject: try newObject(withKeywords: false)
    case .newObjectWithKeywords: try newObject(withKeywords: true)
    case .build: try build()
    case .persistent: try push(Node(kind: .persistent, a: pop()))
    default: throw Failure(.internal, "pickle instruction \(opcode) is not executed")
    }
  }

  private mutating func tuple(last count: Int) throws(Failure) {
    var values: [Int32] = []
    for _ in 0..<count { values.append(try pop()) }
    values.reverse()
    try tuple(values)
  }

  private mutating func tuple(_ values: [Int32]) throws(Failure) {
    if values.isEmpty { return try push(PickleGraph.emptyTuple) }
    try use(values.count)
    let start = Int32(graph.children.count)
    graph.children.append(contentsOf: values)
    try push(Node(kind: .tuple, a: start, b: Int32(values.count)))
  }

  // MARK: - What can grow

  /// Elements into a list or set, or keys and values by turns into a dictionary; into an object what its class makes
  /// of either.
  private mutating func extend(_ target: Int32, with values: [Int32], isPairs: Bool) throws(Failure) {
    guard !isPairs || values.count % 2 == 0 else { throw Failure(.malformed, "a key without a value") }
    var node = graph.nodes[Int(target)]
    switch node.kind {
    case .dictionary where isPairs, .list where !isPairs, .set where !isPairs:
      try extend(&node, with: values)
      graph.nodes[Int(target)] = node
    case .call, .object:
      let position = try addition(of: target)
      var chain = isPairs ? graph.additions[position].pairs : graph.additions[position].items
      try extend(&chain, with: values)
      if isPairs { graph.additions[position].pairs = chain } else { graph.additions[position].items = chain }
    default:
      throw Failure(.malformed, "\(isPairs ? "an entry is set in" : "something is appended to") a \(node.kind)")
    }
  }

  private mutating func extend(_ chain: inout Node, with values: [Int32]) throws(Failure) {
    try use(values.count)
    for value in values {
      let place = Int32(graph.cells.count)
      graph.cells.append(PickleGraph.Cell(value: value))
      if chain.c == 0 { chain.a = place } else { graph.cells[Int(chain.b)].next = place }
      chain.b = place
      chain.c += 1
    }
  }

  /// The position of what is given to a call or an object afterwards.
  private mutating func addition(of target: Int32) throws(Failure) -> Int {
    let known = graph.nodes[Int(target)].c
    if known >= 0 { return Int(known) }
    try use(2)
    graph.additions.append(PickleGraph.Addition())
    graph.nodes[Int(target)].c = Int32(graph.additions.count - 1)
    return graph.additions.count - 1
  }

  // MARK: - What would be called

  private mutating func callee(_ opcode: StaticString) throws(Failure) -> Int32 {
    let callee = try pop()
    switch graph.nodes[Int(callee)].kind {
    case .name, .call, .object: return callee
    case let kind: throw Failure(.malformed, "\(opcode) on a \(kind), expected the name of a function or class")
    }
  }

  private mutating func argumentTuple(_ opcode: StaticString) throws(Failure) -> Int32 {
    let arguments = try pop()
    let kind = graph.nodes[Int(arguments)].kind
    guard kind == .tuple else { throw Failure(.malformed, "\(opcode) with a \(kind), expected a tuple of arguments") }
    return arguments
  }

  private mutating func reduce() throws(Failure) {
    let arguments = try argumentTuple("REDUCE")
    let function = try callee("REDUCE")
    if isOrderedDictionary(function), let pairs = entries(arguments) {
      try push(Node(kind: .dictionary))
      return try extend(top(), with: pairs, isPairs: true)
    }
    try push(Node(kind: .call, a: function, b: arguments, c: -1))
  }

  private func isOrderedDictionary(_ function: Int32) -> Bool {
    let name = graph.nodes[Int(function)]
    func isText(_ text: Int32, _ expected: String) -> Bool {
      let node = graph.nodes[Int(text)]
      return cursor.bytes[Int(node.a)..<Int(node.a) + Int(node.b)].elementsEqual(expected.utf8)
    }
    return name.kind == .name && isText(name.a, "collections") && isText(name.b, "OrderedDict")
  }

  /// Keys and values of an ordered dictionary: as a rule none, they follow with SETITEMS; Python 2 gives them here, as a
  /// list of pairs. Nil for other arguments.
  private func entries(_ arguments: Int32) -> [Int32]? {
    guard let arguments = graph.items(.init(index: arguments)) else { return nil }
    guard let list = arguments.first else { return [] }
    guard arguments.count == 1, graph[list].kind == .list, let pairs = graph.items(list) else { return nil }
    var flat: [Int32] = []
    for pair in pairs {
      guard graph[pair].kind != .set, let both = graph.items(pair), both.count == 2 else { return nil }
      flat += both.map(\.index)
    }
    return flat
  }

  private mutating func newObject(withKeywords: Bool) throws(Failure) {
    let keywords = withKeywords ? try pop() : nil
    let arguments = try argumentTuple("NEWOBJ")
    let type = try callee("NEWOBJ")
    try push(Node(kind: .object, a: type, b: arguments, c: -1))
    guard let keywords else { return }
    guard graph.nodes[Int(keywords)].kind == .dictionary else {
      throw Failure(.malformed, "NEWOBJ_EX without a dictionary of arguments")
    }
    let position = try addition(of: top())
    graph.additions[position].keywords = keywords
  }

  private mutating func build() throws(Failure) {
    let state = try pop()
    let target = try top()
    switch graph.nodes[Int(target)].kind {
    case .dictionary: break  // Attributes of the dictionary itself, such as the versions of a model's modules.
    case .call, .object:
      let position = try addition(of: target)
      guard graph.additions[position].state < 0 else { throw Failure(.malformed, "an object is given its state twice") }
      graph.additions[position].state = state
    case let kind: throw Failure(.malformed, "BUILD on a \(kind)")
    }
  }
}
