public import Bytes

/// A strict cursor over the bytes of one JSON text (RFC 8259, or with what Python adds to it).
///
/// It builds no tree, so a header of 100 MB costs no more than what its reader keeps. UTF-8 only: a
/// byte-order mark, UTF-16, comments, trailing commas and NUL padding are errors.
/// Every failure is `malformed` and carries the offset of the offending byte.
///
/// The caller enters a container, asks for each member or element, and consumes exactly one value
/// after each: `string()`, `wholeNumber(_:)`, `skipValue()`, or another container.
public struct JSONReader: Sendable {
  /// Containers within containers. 64, so that the stack of open containers is two machine words.
  public static let depthLimit = 64

  let bytes: [UInt8]
  let dialect: JSONDialect
  let end: Int
  let baseOffset: Int
  var position: Int

  private var depth = 0
  /// Bit d tells whether the container at depth d is an object, and whether it has had a member.
  private var objects: UInt64 = 0
  private var started: UInt64 = 0

  /// - Parameters:
  ///   - bytes: the whole text.
  ///   - baseOffset: where `bytes` begins in its file; added to every reported offset.
  public init(_ bytes: [UInt8], _ dialect: JSONDialect = .strict, baseOffset: Int = 0) {
    self.bytes = bytes
    self.dialect = dialect
    self.end = bytes.count
    self.baseOffset = baseOffset
    self.position = 0
  }

  /// The kind of a value, told by its first byte.
  public enum Kind: String, Sendable {
    case object = "an object"
    case array = "an array"
    case string = "a string"
    /// Only the kind of a value that has been read: by its first byte it is a string.
    case illFormed = "a string with half of a surrogate pair"
    case number = "a number"
    /// Only the kind of a value that has been read: by its first byte it is a number.
    case notFinite = "NaN or Infinity"
    case bool = "true or false"
    case null = "null"
  }

  /// Offset in the file of the next byte to be read.
  public var offset: Int { baseOffset + position }

  public mutating func nextKind() throws(Failure) -> Kind {
    switch try peek("a value") {
    case UInt8(ascii: "{"): return .object
    case UInt8(ascii: "["): return .array
    case UInt8(ascii: "\""): return .string
    case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): return .number
    case UInt8(ascii: "t"), UInt8(ascii: "f"): return .bool
    case UInt8(ascii: "n"): return .null
    case UInt8(ascii: "N"), UInt8(ascii: "I"):
      if dialect == .python { return .number }
      throw unexpected("a value")
    default: throw unexpected("a value")
    }
  }

  // MARK: Containers

  public mutating func enterObject() throws(Failure) {
    try enter(UInt8(ascii: "{"), "an object", isObject: true)
  }

  public mutating func enterArray() throws(Failure) {
    try enter(UInt8(ascii: "["), "an array", isObject: false)
  }

  /// The next key of the object entered last, unescaped, with its offset in the file; nil at the end of
  /// the object. Whether a key came before is for the caller to check (see `KeyOrder`). A member that no
  /// `String` names is passed over.
  public mutating func nextMember() throws(Failure) -> (key: String, offset: Int)? {
    while let (key, offset) = try nextText() {
      if case .unicode(let key) = key { return (key, offset) }
      try skipValue()
    }
    return nil
  }

  mutating func nextText() throws(Failure) -> (key: JSONText, offset: Int)? {
    guard try advance(closing: UInt8(ascii: "}"), "',' or '}'") else { return nil }
    guard try peek("a key in double quotes") == UInt8(ascii: "\"") else { throw unexpected("a key in double quotes") }
    let offset = self.offset
    let key = try text()
    try expect(UInt8(ascii: ":"), "':'")
    return (key, offset)
  }

  /// Does the same as `nextMember()` and appends the key's bytes to `keys`.
  public mutating func nextMember(appendingTo keys: inout [UInt8]) throws(Failure) -> Int? {
    guard try advance(closing: UInt8(ascii: "}"), "',' or '}'") else { return nil }
    guard try peek("a key in double quotes") == UInt8(ascii: "\"") else { throw unexpected("a key in double quotes") }
    let offset = self.offset
    try string(appendingTo: &keys)
    try expect(UInt8(ascii: ":"), "':'")
    return offset
  }

  /// True when another element of the array entered last follows; false at its end.
  public mutating func nextElement() throws(Failure) -> Bool {
    guard try advance(closing: UInt8(ascii: "]"), "',' or ']'") else { return false }
    if try peek("a value") == UInt8(ascii: "]") { throw unexpected("a value after ','") }
    return true
  }

  /// Checks that nothing but whitespace follows the text's one value.
  public mutating func finish() throws(Failure) {
    skipWhitespace()
    if position < end { throw unexpected("the end of the JSON text") }
  }

  /// Passes over one value of any kind, checking it as strictly as if it were read.
  public mutating func skipValue() throws(Failure) {
    let floor = depth
    var hasValue = true
    while true {
      if hasValue {
        switch try nextKind() {
        case .object: try enterObject()
        case .array: try enterArray()
        case .string, .illFormed: _ = try text()
        case .number, .notFinite: _ = try numberRange()
        case .bool: _ = try bool()
        case .null: try null()
        }
      }
      if depth == floor { return }
      hasValue = objects & bit != 0 ? try nextText() != nil : try nextElement()
    }
  }

  private var bit: UInt64 { 1 << UInt64(depth - 1) }

  private mutating func enter(_ opening: UInt8, _ what: StaticString, isObject: Bool) throws(Failure) {
    guard try peek(what) == opening else { throw unexpected(what) }
    guard depth < Self.depthLimit else {
      throw failure("nested deeper than the \(Self.depthLimit) levels allowed")
    }
    position += 1
    depth += 1
    started &= ~bit
    if isObject { objects |= bit } else { objects &= ~bit }
  }

  /// Passes the comma before every member but the first; false, and out of the container, at its end.
  private mutating func advance(closing: UInt8, _ expected: StaticString) throws(Failure) -> Bool {
    precondition(depth > 0, "no container was entered")
    let byte = try peek(expected)
    if byte == closing {
      position += 1
      depth -= 1
      return false
    }
    if started & bit != 0 {
      guard byte == UInt8(ascii: ",") else { throw unexpected(expected) }
      position += 1
    }
    started |= bit
    return true
  }

  // MARK: Bytes

  mutating func skipWhitespace() {
    while position < end {
      switch bytes[position] {
      case 0x20, 0x09, 0x0A, 0x0D: position += 1
      default: return
      }
    }
  }

  mutating func peek(_ expected: StaticString) throws(Failure) -> UInt8 {
    skipWhitespace()
    guard position < end else { throw failure("JSON text ends, expected \(expected)") }
    return bytes[position]
  }

  mutating func expect(_ byte: UInt8, _ expected: StaticString) throws(Failure) {
    guard try peek(expected) == byte else { throw unexpected(expected) }
    position += 1
  }

  /// The failure for bytes at the cursor that do not belong there.
  func unexpected(_ expected: StaticString) -> Failure {
    guard position < end else { return failure("JSON text ends, expected \(expected)") }
    let message = "found \(describe(bytes[position])), expected \(expected)"
    return failure(slip.map { "\(message): \($0)" } ?? message)
  }

  func describe(_ byte: UInt8) -> String {
    if byte > 0x20, byte < 0x7F { return "'\(Character(Unicode.Scalar(byte)))'" }
    let digits = String(byte, radix: 16, uppercase: true)
    return "byte 0x" + (digits.utf8.count == 1 ? "0" + digits : digits)
  }

  func failure(_ message: String, at position: Int? = nil) -> Failure {
    Failure(.malformed, message, offset: baseOffset + (position ?? self.position))
  }
}
