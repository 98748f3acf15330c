public import Bytes

/// One JSON value as a tree: for configs, indexes' small parts and manifests, which are read whole,
/// edited and written back. Large headers are read with `JSONReader` instead.
public indirect enum JSONValue: Sendable {
  case null
  case bool(Bool)
  case number(JSONNumber)
  case string(String)
  /// Only in what Python writes, see `JSONDialect`.
  case illFormed(IllFormedString)
  case array([JSONValue])
  case object(JSONObject)

  /// Parses one complete text.
  ///
  /// - Parameters:
  ///   - file: the name that failures carry.
  /// - Throws: `malformed` with the byte offset, for whatever the dialect does not allow, for a key that
  ///   occurs twice in its object (compared unescaped), and beyond `JSONReader.depthLimit` levels.
  public init(
    parsing bytes: [UInt8], _ dialect: JSONDialect = .strict, file: String? = nil
  ) throws(Failure) {
    do throws(Failure) {
      var reader = JSONReader(bytes, dialect)
      self = try reader.value()
      try reader.finish()
    } catch {
      // What is no file, such as a value on a command line, speaks for itself.
      throw (file == nil ? error : Failure.noJSON(bytes) ?? error).located(file: file)
    }
  }

  public var isNull: Bool { if case .null = self { true } else { false } }
  public var bool: Bool? { if case .bool(let value) = self { value } else { nil } }
  public var number: JSONNumber? { if case .number(let value) = self { value } else { nil } }
  public var int: Int? { number?.int }
  public var double: Double? { number?.double }
  public var string: String? { if case .string(let value) = self { value } else { nil } }
  public var array: [JSONValue]? { if case .array(let value) = self { value } else { nil } }
  public var object: JSONObject? { if case .object(let value) = self { value } else { nil } }

  /// A member of an object; nil when there is none or this is no object. Setting on anything but an
  /// object replaces it by an object with that one member.
  public subscript(key: String) -> JSONValue? {
    get { object?[key] }
    set {
      var object = self.object ?? JSONObject()
      object[key] = newValue
      self = .object(object)
    }
  }

  /// The value's kind, for messages: "a string".
  public var kind: JSONReader.Kind {
    switch self {
    case .null: .null
    case .bool: .bool
    case .number(let number): number.isFinite ? .number : .notFinite
    case .string: .string
    case .illFormed: .illFormed
    case .array: .array
    case .object: .object
    }
  }
}

extension JSONReader {
  /// The next value as a tree. Recursion is bounded by `depthLimit`.
  public mutating func value() throws(Failure) -> JSONValue {
    switch try nextKind() {
    case .null:
      try null()
      return .null
    case .bool: return .bool(try bool())
    case .number, .notFinite: return .number(try number())
    case .string, .illFormed:
      switch try text() {
      case .unicode(let string): return .string(string)
      case .illFormed(let string): return .illFormed(string)
      }
    case .array:
      try enterArray()
      var elements: [JSONValue] = []
      while try nextElement() { elements.append(try value()) }
      return .array(elements)
    case .object: return .object(try object())
    }
  }

  /// The next value, which must be an object, as a tree.
  public mutating func object() throws(Failure) -> JSONObject {
    try enterObject()
    var members: [(key: String, value: JSONValue)] = []
    var offsets: [Int] = []
    var others: [(key: IllFormedString, value: JSONValue, position: Int)] = []
    var otherOffsets: [IllFormedString: Int] = [:]
    while let (key, offset) = try nextText() {
      switch key {
      case .unicode(let key):
        offsets.append(offset)
        members.append((key, try value()))
      case .illFormed(let key):
        if let first = otherOffsets.updateValue(offset, forKey: key) {
          throw .duplicateKey(key.description, first: first, second: offset)
        }
        others.append((key, try value(), members.count))
      }
    }
    let order = KeyOrder(count: members.count) { members[$0].key }
    if let (first, second) = order.firstDuplicate {
      throw .duplicateKey(members[first].key, first: offsets[first], second: offsets[second])
    }
    return JSONObject(unique: members, others)
  }
}

extension JSONValue: Equatable {
  /// Strings and keys by their bytes, numbers by their text, objects in order.
  public static func == (left: JSONValue, right: JSONValue) -> Bool {
    switch (left, right) {
    case (.null, .null): true
    case (.bool(let one), .bool(let other)): one == other
    case (.number(let one), .number(let other)): one == other
    case (.illFormed(let one), .illFormed(let other)): one == other
    case (.string(let one), .string(let other)): KeyOrder.compare(one, other) == 0
    case (.array(let one), .array(let other)): one == other
    case (.object(let one), .object(let other)): one == other
    default: false
    }
  }
}

extension JSONValue: ExpressibleByStringLiteral, ExpressibleByIntegerLiteral, ExpressibleByBooleanLiteral,
  ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral, ExpressibleByNilLiteral
{
  public init(stringLiteral value: String) { self = .string(value) }
  public init(integerLiteral value: Int) { self = .number(JSONNumber(value)) }
  public init(booleanLiteral value: Bool) { self = .bool(value) }
  public init(arrayLiteral elements: JSONValue...) { self = .array(elements) }
  public init(dictionaryLiteral elements: (String, JSONValue)...) {
    var object = JSONObject()
    for (key, value) in elements { object[key] = value }
    self = .object(object)
  }
  public init(nilLiteral: ()) { self = .null }

  public static func number(_ value: Int) -> JSONValue { .number(JSONNumber(value)) }
}
