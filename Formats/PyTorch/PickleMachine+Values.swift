import Bytes

// The instructions that make values: constants, numbers, texts, names.
extension PickleMachine {
  mutating func execute(_ opcode: PickleOpcode) throws(Failure) {
    switch opcode {
    case .none: try push(PickleGraph.none)
    case .newTrue: try push(PickleGraph.true)
    case .newFalse: try push(PickleGraph.false)
    case .binaryInteger: try push(integer: Int(Int32(bitPattern: cursor.integer(UInt32.self, "an integer"))))
    case .binaryInteger1: try push(integer: Int(cursor.byte("an integer")))
    case .binaryInteger2: try push(integer: Int(cursor.integer(UInt16.self, "an integer")))
    case .long1: try long(Int(cursor.byte("the length of an integer")))
    case .long4: try long(length(cursor.integer(UInt32.self, "the length of an integer")))
    case .binaryFloat:
      // The one number that is big-endian.
      let bits = try cursor.integer(UInt64.self, "a number").byteSwapped
      try push(
        PickleGraph.Node(
          kind: .real, a: Int32(truncatingIfNeeded: bits), b: Int32(truncatingIfNeeded: bits >> 32)))
    case .shortBinaryUnicode: try text(Int(cursor.byte("the length of a text")))
    case .binaryUnicode: try text(Int(cursor.integer(UInt32.self, "the length of a text")))
    case .binaryUnicode8: try text(length(cursor.integer(UInt64.self, "the length of a text")))
    case .shortBinaryString: try span(.latinText, Int(cursor.byte("the length of a text")))
    case .binaryString:
      let declared = Int32(bitPattern: try cursor.integer(UInt32.self, "the length of a text"))
      guard declared >= 0 else { throw Failure(.malformed, "a text of \(declared) bytes") }
      try span(.latinText, Int(declared))
    case .shortBinaryBytes: try span(.bytes, Int(cursor.byte("the length of bytes")))
    case .binaryBytes: try span(.bytes, Int(cursor.integer(UInt32.self, "the length of bytes")))
    case .binaryBytes8: try span(.bytes, length(cursor.integer(UInt64.self, "the length of bytes")))
    case .global: try global()
    case .stackGlobal: try stackGlobal()
    default: try assemble(opcode)
    }
  }

  mutating func push(integer: Int) throws(Failure) {
    if (0..<256).contains(integer) { return try push(PickleGraph.zero + Int32(integer)) }
    try push(
      PickleGraph.Node(
        kind: .integer, a: Int32(truncatingIfNeeded: integer), b: Int32(truncatingIfNeeded: integer >> 32)))
  }

  /// Little-endian two's complement of any length.
  private mutating func long(_ count: Int) throws(Failure) {
    let start = try cursor.skip(count, "an integer")
    let digits = cursor.bytes[start..<start + count]
    if digits.elementsEqual(Self.legacyMagic) { return try push(PickleGraph.Node(kind: .legacyMagic)) }
    guard count <= 255 else { throw Failure(.unsupported, "an integer of \(count) bytes, read are 255 at most") }
    // Seeds and states of random numbers: no size or offset is so large.
    if count > 8 { return try push(PickleGraph.Node(kind: .longInteger, a: Int32(start), b: Int32(count))) }
    var value = (digits.last ?? 0) & 0x80 == 0 ? 0 : -1
    for digit in digits.reversed() { value = value << 8 | Int(digit) }
    try push(integer: value)
  }

  private func length(_ declared: some FixedWidthInteger & UnsignedInteger) throws(Failure) -> Int {
    guard let length = Int(exactly: declared) else {
      throw Failure(.malformed, "a length of \(declared) bytes, \(cursor.length - cursor.position) remain")
    }
    return length
  }

  private mutating func span(_ kind: PickleGraph.Kind, _ count: Int) throws(Failure) {
    let start = try cursor.skip(count, kind == .bytes ? "bytes" : "a text")
    try push(PickleGraph.Node(kind: kind, a: Int32(start), b: Int32(count)))
  }

  private mutating func text(_ count: Int) throws(Failure) {
    let start = try cursor.skip(count, "a text")
    try checkUTF8(start, count)
    try push(PickleGraph.Node(kind: .text, a: Int32(start), b: Int32(count)))
  }

  private func checkUTF8(_ start: Int, _ count: Int) throws(Failure) {
    do {
      _ = try UTF8Span(validating: cursor.bytes.span.extracting(start..<start + count))
    } catch { throw Failure(.malformed, "a text in the pickle is not UTF-8", offset: cursor.baseOffset + start) }
  }

  // MARK: - Names

  private mutating func global() throws(Failure) {
    var parts: [Int32] = []
    for _ in 0..<2 {
      let (start, count) = try cursor.line(limit: Self.nameLimit, "a function's name")
      try checkUTF8(start, count)
      parts.append(try add(PickleGraph.Node(kind: .text, a: Int32(start), b: Int32(count))))
    }
    try push(PickleGraph.Node(kind: .name, a: parts[0], b: parts[1]))
  }

  private mutating func stackGlobal() throws(Failure) {
    let name = try pop()
    let module = try pop()
    for part in [module, name] {
      let node = graph.nodes[Int(part)]
      guard node.kind == .text || node.kind == .latinText, node.b <= Self.nameLimit else {
        throw Failure(.malformed, "the name of a function is not a text of at most \(Self.nameLimit) bytes")
      }
    }
    try push(PickleGraph.Node(kind: .name, a: module, b: name))
  }
}
