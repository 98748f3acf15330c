import Bytes
import PyTorch
import TestSupport
import Testing

/// Each instruction, and what it makes.
@Suite struct PickleTests {
  private func text(_ value: [UInt8], version: UInt8 = 2) throws -> String {
    let graph = try graph(Pickle.whole(value, version: version))
    return describe(graph, graph.root)
  }

  /// The value as a text in the manner of Python.
  private func describe(_ graph: PickleGraph, _ reference: PickleGraph.Reference) -> String {
    func list(_ items: [PickleGraph.Reference]) -> String { items.map { describe(graph, $0) }.joined(separator: ", ") }
    switch graph.value(reference) {
    case .none: return "None"
    case .boolean(let value): return value ? "True" : "False"
    case .integer(let value): return "\(value)"
    case .real(let value): return "\(value)"
    case .legacyMagic: return "magic"
    case .text(let text): return "'\(text)'"
    case .bytes(let bytes): return "\(bytes)"
    case .longInteger(let bytes): return "long \(bytes)"
    case .tuple(let items): return "(\(list(items)))"
    case .list(let items): return "[\(list(items))]"
    case .set(let items): return "{\(list(items))}"
    case .dictionary(let pairs):
      return "{" + pairs.map { "\(describe(graph, $0.key)): \(describe(graph, $0.value))" }.joined(separator: ", ")
        + "}"
    case .name(let name): return name
    case .call(let function, let arguments):
      return describe(graph, function) + describe(graph, arguments) + additions(graph, reference)
    case .object(let type, let arguments):
      return "new " + describe(graph, type) + describe(graph, arguments) + additions(graph, reference)
    case .persistent(let id): return "@" + describe(graph, id)
    }
  }

  private func additions(_ graph: PickleGraph, _ reference: PickleGraph.Reference) -> String {
    var text = ""
    if let state = graph.state(reference) { text += " with \(describe(graph, state))" }
    if let keywords = graph.keywords(reference) { text += " by \(describe(graph, keywords))" }
    for item in graph.appended(reference) { text += " + \(describe(graph, item))" }
    for (key, value) in graph.entries(reference) { text += " & \(describe(graph, key)): \(describe(graph, value))" }
    return text
  }

  private static let rows: [(instructions: String, bytes: [UInt8], value: String)] = [
    ("NONE", [0x4E], "None"), ("NEWTRUE", [0x88], "True"), ("NEWFALSE", [0x89], "False"),
    ("BININT", [0x4A, 0xFE, 0xFF, 0xFF, 0xFF], "-2"), ("BININT1", [0x4B, 255], "255"),
    ("BININT2", [0x4D, 0, 1], "256"), ("LONG1, empty", [0x8A, 0], "0"), ("LONG1", [0x8A, 2, 0, 0x80], "-32768"),
    ("LONG1, 8 bytes", [0x8A, 8, 0, 0, 0, 0, 0, 0, 0, 0x80], "-9223372036854775808"),
    ("LONG1, 9 bytes", [0x8A, 9, 1, 0, 0, 0, 0, 0, 0, 0, 1], "long [1, 0, 0, 0, 0, 0, 0, 0, 1]"),
    ("LONG4", [0x8B, 1, 0, 0, 0, 0x7F], "127"), ("BINFLOAT", [0x47, 0x3F, 0xF8, 0, 0, 0, 0, 0, 0], "1.5"),
    ("BINUNICODE", [0x58, 2, 0, 0, 0, 0xC3, 0xA9], "'é'"), ("SHORT_BINUNICODE", [0x8C, 1, 0x61], "'a'"),
    ("BINUNICODE8", [0x8D, 1, 0, 0, 0, 0, 0, 0, 0, 0x61], "'a'"), ("SHORT_BINSTRING", [0x55, 1, 0xE9], "'é'"),
    ("BINSTRING", [0x54, 1, 0, 0, 0, 0x61], "'a'"), ("SHORT_BINBYTES", [0x43, 2, 0, 255], "[0, 255]"),
    ("BINBYTES", [0x42, 1, 0, 0, 0, 7], "[7]"), ("BINBYTES8", [0x8E, 1, 0, 0, 0, 0, 0, 0, 0, 7], "[7]"),
    ("EMPTY_TUPLE", [0x29], "()"), ("TUPLE1", [0x4B, 1, 0x85], "(1)"), ("TUPLE2", [0x4B, 1, 0x4B, 2, 0x86], "(1, 2)"),
    ("TUPLE3", [0x4B, 1, 0x4B, 2, 0x4B, 3, 0x87], "(1, 2, 3)"), ("TUPLE", [0x28, 0x4B, 1, 0x4E, 0x74], "(1, None)"),
    ("TUPLE of none", [0x28, 0x74], "()"), ("EMPTY_LIST", [0x5D], "[]"), ("APPEND", [0x5D, 0x4B, 1, 0x61], "[1]"),
    ("APPENDS", [0x5D, 0x28, 0x4B, 1, 0x4B, 2, 0x65], "[1, 2]"), ("EMPTY_DICT", [0x7D], "{}"),
    ("SETITEM", [0x7D, 0x4B, 1, 0x4B, 2, 0x73], "{1: 2}"),
    ("SETITEMS", [0x7D, 0x28, 0x4B, 9, 0x4B, 2, 0x4B, 3, 0x4E, 0x75], "{9: 2, 3: None}"),
    ("EMPTY_SET, ADDITEMS", [0x8F, 0x28, 0x4B, 1, 0x90], "{1}"), ("FROZENSET", [0x28, 0x4B, 1, 0x91], "{1}"),
    ("POP", [0x4B, 1, 0x4E, 0x30], "1"), ("POP of a mark", [0x4B, 1, 0x28, 0x30], "1"),
    ("POP_MARK", [0x4B, 1, 0x28, 0x4E, 0x4E, 0x31], "1"), ("DUP", [0x4B, 1, 0x32, 0x86], "(1, 1)"),
    ("BINPUT, BINGET", [0x5D, 0x71, 0, 0x68, 0, 0x86], "([], [])"),
    ("LONG_BINPUT, LONG_BINGET", [0x4E, 0x72, 9, 1, 0, 0, 0x6A, 9, 1, 0, 0, 0x86], "(None, None)"),
    ("MEMOIZE", [0x4B, 1, 0x94, 0x4B, 2, 0x94, 0x68, 0, 0x87], "(1, 2, 1)"),
    ("FRAME", [0x95, 2, 0, 0, 0, 0, 0, 0, 0, 0x4E], "None"), ("GLOBAL", Pickle.global("a.b", "C"), "a.b.C"),
    ("STACK_GLOBAL", [0x8C, 1, 0x61, 0x8C, 1, 0x43, 0x93], "a.C"),
    ("REDUCE", Pickle.call("posix", "system", [Pickle.text("id")]), "posix.system('id')"),
    ("REDUCE of an ordered dictionary", Pickle.orderedDictionary, "{}"),
    (
      "REDUCE of one by Python 2",
      Pickle.call(
        "collections", "OrderedDict", [Pickle.list([Pickle.list([Pickle.text("a"), [0x4E]])])]), "{'a': None}"
    ),
    (
      "REDUCE of one from something else", Pickle.call("collections", "OrderedDict", [Pickle.integer(3)]),
      "collections.OrderedDict(3)"
    ),
    ("NEWOBJ", Pickle.global("a", "C") + [0x29, 0x81], "new a.C()"),
    ("NEWOBJ_EX", Pickle.global("a", "C") + [0x29, 0x7D, 0x92], "new a.C() by {}"),
    (
      "BUILD", Pickle.global("a", "C") + [0x29, 0x81] + Pickle.dictionary([("x", [0x4E])]) + [0x62],
      "new a.C() with {'x': None}"
    ),
    ("BUILD of a dictionary", [0x7D] + Pickle.dictionary([("__class__", [0x4E])]) + [0x62], "{}"),
    ("APPENDS to an object", Pickle.call("collections", "deque", []) + [0x4B, 1, 0x61], "collections.deque() + 1"),
    ("SETITEM of an object", Pickle.call("a", "D", []) + [0x4B, 1, 0x4B, 2, 0x73], "a.D() & 1: 2"),
  ]

  @Test(arguments: rows.indices) func value(_ row: Int) throws {
    #expect(try text(Self.rows[row].bytes) == Self.rows[row].value, "\(Self.rows[row].instructions)")
  }

  @Test(arguments: UInt8(2)...5) func version(_ version: UInt8) throws {
    #expect(try text([0x88], version: version) == "True")
  }

  @Test func onlyReferencesAreShared() throws {
    // Two lists that are equal, and one that is there twice.
    let graph = try graph(Pickle.whole([0x5D, 0x71, 0, 0x5D, 0x68, 0, 0x87]))
    let items = try #require(graph.items(graph.root))
    #expect(items[0] == items[2] && items[0] != items[1])
  }

  @Test func aCircleIsNoDifficulty() throws {
    let graph = try graph(Pickle.whole([0x5D, 0x71, 0, 0x68, 0, 0x61]))
    #expect(graph.items(graph.root) == [graph.root])
  }

  /// Ten layers of nine references each: 10⁹ leaves for whoever walks a tree.
  @Test func manyReferencesAreFewValues() throws {
    var bytes: [UInt8] = [0x4E, 0x71, 0]
    for layer in UInt8(0)..<10 { bytes += [0x28] + (0..<9).flatMap { _ in [0x68, layer] } + [0x74, 0x71, layer + 1] }
    // All but the last are left below it.
    let value = [0x28] + bytes + [0x74]
    #expect(try graph(Pickle.whole(value)).count < 300)
  }

  @Test(arguments: [0x28, 0x5D] as [UInt8]) func depthIsNoDifficulty(_ opening: UInt8) throws {
    let depth = 1_000_000
    let bytes: [UInt8] =
      opening == 0x28
      ? [0x4E] + [UInt8](repeating: 0x85, count: depth)
      : [UInt8](repeating: 0x5D, count: depth) + [UInt8](repeating: 0x61, count: depth - 1)
    #expect(try graph(Pickle.whole(bytes)).count > depth)
  }
}
