import Bytes

/// What a pickle may take.
public struct PickleLimits: Sendable {
  /// Bytes of the pickle.
  public let byteCount: Int
  /// Values, elements and entries that it may consist of.
  public let itemCount: Int

  /// - Parameter itemCount: nil for one for every four bytes; a value takes at least five as Python writes most of them.
  public init(byteCount: Int = 64 << 20, itemCount: Int? = nil) {
    // Offsets and positions have 31 bits.
    self.byteCount = min(byteCount, 1 << 30)
    self.itemCount = min(itemCount ?? self.byteCount / 4, 1 << 30)
  }
}

/// Reads pickles of the protocols 2 to 5 as data.
///
/// Instructions that describe values are executed; a call becomes a value that says what would be called with what.
/// Nothing is imported, made or called. Work and memory are linear in the bytes, about 50 of them for an item at most;
/// nothing is recursive. An instruction that files of PyTorch have no use for is refused.
struct PickleMachine {
  /// Bytes of a module's or function's name.
  static let nameLimit = 1024
  /// The first value of a file from before PyTorch 1.6: 0x1950A86A20F9469CFC6C.
  static let legacyMagic: [UInt8] = [0x6C, 0xFC, 0x9C, 0x46, 0xF9, 0x20, 0x6A, 0xA8, 0x50, 0x19]

  var cursor: PickleCursor
  var graph = PickleGraph()
  var stack: [Int32] = []
  /// Heights of the stack at which a mark stands.
  private var marks: [Int32] = []
  /// Entries 0, 1, 2 …; those beyond are in `sparseMemo`, as an index may be anything.
  private var memo: [Int32] = []
  private var sparseMemo: [UInt32: Int32] = [:]
  private let limits: PickleLimits
  private var itemCount = 0

  private init(_ cursor: PickleCursor, _ limits: PickleLimits) {
    self.cursor = cursor
    self.limits = limits
  }

  /// The value of a pickle that fills a slice.
  static func read(_ slice: FileSlice, limits: PickleLimits) throws(Failure) -> PickleGraph {
    guard slice.length <= limits.byteCount else {
      throw Failure(
        .malformed, "the pickle has \(slice.length) bytes, allowed are \(limits.byteCount)", file: slice.file.name,
        offset: slice.offset)
    }
    let (graph, end) = try readFirst(slice, limits: limits)
    guard end == slice.length else {
      throw Failure(
        .malformed, "\(counted(slice.length - end, "byte")) follow the end of the pickle, allowed are none",
        file: slice.file.name, offset: slice.offset + end)
    }
    return graph
  }

  /// The value of the pickle that a slice begins with, and the length of that pickle.
  static func readFirst(_ slice: FileSlice, limits: PickleLimits) throws(Failure) -> (PickleGraph, length: Int) {
    var machine = PickleMachine(PickleCursor(slice, limit: limits.byteCount), limits)
    do throws(Failure) {
      try machine.run()
    } catch { throw error.located(file: slice.file.name) }
    return (machine.graph, machine.cursor.position)
  }

  private mutating func run() throws(Failure) {
    graph.baseOffset = cursor.baseOffset
    let first = try cursor.byte("its first instruction")
    let version = try cursor.byte("its version")
    guard first == PickleOpcode.protocolVersion.rawValue, (2...5).contains(version) else {
      throw Failure(
        .unsupported,
        first == PickleOpcode.protocolVersion.rawValue
          ? "is a pickle of protocol \(version), read are 2 to 5"
          : "does not begin as a pickle of protocol 2 to 5 does",
        offset: cursor.baseOffset)
    }
    var isRunning = true
    while isRunning {
      let position = cursor.position
      do throws(Failure) {
        isRunning = try step()
      } catch {
        var failure = error
        failure.offset = failure.offset ?? cursor.baseOffset + position
        throw failure
      }
    }
    graph.bytes = Array(cursor.bytes[..<cursor.position])
    try checkKeys()
  }

  /// - Returns: false when it was the last.
  private mutating func step() throws(Failure) -> Bool {
    let byte = try cursor.byte("its instructions, before STOP")
    guard let opcode = PickleOpcode(rawValue: byte) else {
      let name = PickleOpcode.refused[byte].map { "\($0) " } ?? ""
      throw Failure(
        .unsupported, "pickle instruction \(name)0x\(String(byte, radix: 16)) is not one that PyTorch writes")
    }
    switch opcode {
    case .protocolVersion: throw Failure(.malformed, "the protocol is given twice")
    case .frame:
      let length = try cursor.integer(UInt64.self, "the length of a frame")
      guard length <= UInt64(cursor.length - cursor.position) else {
        throw Failure(.malformed, "a frame of \(length) bytes, only \(cursor.length - cursor.position) remain")
      }
    case .stop:
      guard stack.count == 1, marks.isEmpty else {
        throw Failure(.malformed, "the pickle ends with \(counted(stack.count, "value")) on its stack, expected 1")
      }
      graph.rootIndex = stack[0]
      return false
    case .mark:
      try use(1)
      marks.append(Int32(stack.count))
    case .pop:
      if stack.count == floor, !marks.isEmpty { marks.removeLast() } else { _ = try pop() }
    case .popMark: _ = try popToMark()
    case .duplicate: try push(top())
    case .get: try get(UInt32(cursor.byte("an index")))
    case .longGet: try get(cursor.integer(UInt32.self, "an index"))
    case .put: try put(UInt32(cursor.byte("an index")))
    case .longPut: try put(cursor.integer(UInt32.self, "an index"))
    case .memoize: try put(UInt32(memo.count + sparseMemo.count))
    default: try execute(opcode)
    }
    return true
  }

  // MARK: - The stack

  /// What lies below belongs to the mark before.
  private var floor: Int { Int(marks.last ?? 0) }

  func top() throws(Failure) -> Int32 {
    guard let last = stack.last, stack.count > floor else { throw Failure(.malformed, "the pickle's stack is empty") }
    return last
  }

  mutating func pop() throws(Failure) -> Int32 {
    let value = try top()
    stack.removeLast()
    return value
  }

  mutating func popToMark() throws(Failure) -> [Int32] {
    guard let mark = marks.popLast() else { throw Failure(.malformed, "there is no mark on the pickle's stack") }
    // A copy: as long as a slice of the stack is held, changing the stack would copy all of it.
    let values = Array(stack[Int(mark)...])
    stack.removeSubrange(Int(mark)...)
    return values
  }

  mutating func push(_ value: Int32) throws(Failure) {
    guard stack.count < limits.itemCount else { throw tooMany }
    stack.append(value)
  }

  mutating func push(_ node: PickleGraph.Node) throws(Failure) { try push(add(node)) }

  // MARK: - The memo

  private mutating func put(_ index: UInt32) throws(Failure) {
    let value = try top()
    guard index >= memo.count, sparseMemo[index] == nil else {
      throw Failure(.malformed, "entry \(index) of the pickle's memo is set twice")
    }
    try use(1)
    if index == memo.count { memo.append(value) } else { sparseMemo[index] = value }
  }

  private mutating func get(_ index: UInt32) throws(Failure) {
    if index < memo.count { return try push(memo[Int(index)]) }
    guard let value = sparseMemo[index] else {
      throw Failure(.malformed, "entry \(index) of the pickle's memo is used and was never set")
    }
    try push(value)
  }

  // MARK: - What there is

  private var tooMany: Failure {
    Failure(.malformed, "the pickle consists of more than the \(limits.itemCount) items allowed")
  }

  mutating func use(_ count: Int) throws(Failure) {
    itemCount += count
    guard itemCount <= limits.itemCount else { throw tooMany }
  }

  mutating func add(_ node: PickleGraph.Node) throws(Failure) -> Int32 {
    try use(1)
    graph.nodes.append(node)
    return Int32(graph.nodes.count - 1)
  }
}
