public import Bytes

/// What a pickle describes: values that refer to each other, none of them made or called.
///
/// The values lie in one array and refer to each other by position. So a value that occurs twice is one, a circle is no
/// difficulty, and however deep they are nested, nothing about them is recursive, their end included.
public struct PickleGraph: Sendable {
  /// A value of the graph. Two references are equal when they are to the same value.
  public struct Reference: Hashable, Sendable {
    let index: Int32
  }

  enum Kind: UInt8 {
    case none, boolean, integer, longInteger, real, legacyMagic, text, latinText, bytes, tuple, list, set, dictionary,
      name, call,
      object, persistent
  }

  /// 16 bytes, whatever the kind:
  /// integer, real: the bits in `a` (low) and `b`; boolean: `a`; text, bytes, longInteger: offset `a`, length `b` in the pickle;
  /// tuple: first `a` and number `b` in `children`; list, set: the first `a` and last `b` of `cells`, their number `c`;
  /// dictionary: the same, a key and its value by turns; name: module `a`, name `b`; call, object: what is called `a`,
  /// arguments `b`, position `c` in `additions` or -1; persistent: its identifier `a`.
  struct Node {
    var kind: Kind
    var a: Int32 = 0
    var b: Int32 = 0
    var c: Int32 = 0
  }

  /// A place in a list that can grow.
  struct Cell {
    let value: Int32
    /// -1 at the end.
    var next: Int32 = -1
  }

  /// What is given to an object after it was made.
  struct Addition {
    var state: Int32 = -1
    var keywords: Int32 = -1
    /// As in a node of a list, and of a dictionary.
    var items = Node(kind: .list, a: -1, b: -1)
    var pairs = Node(kind: .dictionary, a: -1, b: -1)
  }

  // What needs no node of its own each time, at fixed positions.
  static let none: Int32 = 0
  static let `false`: Int32 = 1
  static let `true`: Int32 = 2
  static let emptyTuple: Int32 = 3
  /// Of the integer 0; those to 255 follow it.
  static let zero: Int32 = 4

  var nodes: [Node] =
    [Node(kind: .none), Node(kind: .boolean, a: 0), Node(kind: .boolean, a: 1), Node(kind: .tuple)]
    + (0..<256).map { Node(kind: .integer, a: $0) }
  var children: [Int32] = []
  var cells: [Cell] = []
  var additions: [Addition] = []
  /// The pickle, in which texts lie.
  var bytes: [UInt8] = []
  /// What is added to an offset in `bytes` for that in the file.
  var baseOffset = 0
  var rootIndex: Int32 = 0

  init() {}

  /// Reads a pickle that a file consists of, or a part of one.
  ///
  /// - Throws: `malformed`; `unsupported` for instructions and protocols that are not read.
  public init(_ slice: FileSlice, limits: PickleLimits = PickleLimits()) throws(Failure) {
    self = try PickleMachine.read(slice, limits: limits)
  }

  /// The one value that the pickle is of.
  public var root: Reference { Reference(index: rootIndex) }

  /// Values of the graph: constants and small integers once for all their uses.
  public var count: Int { nodes.count }

  subscript(_ reference: Reference) -> Node { nodes[Int(reference.index)] }
}

/// One value of a pickle, with references to those that it consists of.
public enum PickleValue: Sendable {
  case none
  case boolean(Bool)
  case integer(Int)
  /// One of more than 8 bytes, in little-endian two's complement.
  case longInteger([UInt8])
  case real(Double)
  /// The number that files of PyTorch before 1.6 begin with.
  case legacyMagic
  case text(String)
  case bytes([UInt8])
  case tuple([PickleGraph.Reference])
  case list([PickleGraph.Reference])
  case set([PickleGraph.Reference])
  /// In the order written; each key once.
  case dictionary([(key: PickleGraph.Reference, value: PickleGraph.Reference)])
  /// A function or class, `MODULE.NAME`.
  case name(String)
  /// What a function would return if it were called.
  case call(function: PickleGraph.Reference, arguments: PickleGraph.Reference)
  /// An instance of a class, as `__new__` would be given the arguments.
  case object(type: PickleGraph.Reference, arguments: PickleGraph.Reference)
  /// Something that lies outside the pickle: in files of PyTorch a storage.
  case persistent(PickleGraph.Reference)
}
