import Bytes

/// The members of a JSON object in the order they were written.
///
/// Keys are equal when their bytes are; no key occurs twice.
public struct JSONObject: Sendable {
  public private(set) var members: [(key: String, value: JSONValue)]

  /// Members that no `String` names, each with how many of `members` stand before it.
  private var others: [(key: IllFormedString, value: JSONValue, position: Int)] = []
  /// Where each of many members stands; empty while nothing was set, or little is there.
  private var places: [KeyBytes: Int] = [:]

  public init() { members = [] }

  /// - Parameter members: without repeated keys.
  init(
    unique members: [(key: String, value: JSONValue)],
    _ others: [(key: IllFormedString, value: JSONValue, position: Int)]
  ) {
    self.members = members
    self.others = others
  }

  /// - Precondition: no key occurs twice.
  package init(distinct members: [(key: String, value: JSONValue)]) { self.members = members }

  public var count: Int { members.count + others.count }
  public var isEmpty: Bool { count == 0 }
  public var keys: [String] { members.map(\.key) }
  /// Whether there are members, not among `members`, whose keys have half of a surrogate pair in them.
  public var hasIllFormedKeys: Bool { !others.isEmpty }

  /// The value of `key`. Setting replaces it where it stands, or adds it at the end; nil removes it.
  ///
  /// - Complexity: getting and removing, linear in the number of members; setting, constant.
  public subscript(key: String) -> JSONValue? {
    get { position(of: key).map { members[$0].value } }
    set {
      if newValue != nil { indexIfMany() }
      switch (position(of: key), newValue) {
      case (let position?, let value?): members[position].value = value
      case (let position?, nil): remove(at: position)
      case (nil, let value?):
        if !places.isEmpty { places[KeyBytes(text: key)] = members.count }
        members.append((key, value))
      case (nil, nil): break
      }
    }
  }

  /// Every member in order.
  func visit(_ body: (JSONText, JSONValue) -> Void) {
    var rest = others[...]
    for (position, member) in members.enumerated() {
      while let other = rest.first, other.position <= position {
        body(.illFormed(other.key), other.value)
        rest.removeFirst()
      }
      body(.unicode(member.key), member.value)
    }
    for other in rest { body(.illFormed(other.key), other.value) }
  }

  private func position(of key: String) -> Int? {
    if !places.isEmpty { return places[KeyBytes(text: key)] }
    return members.firstIndex { KeyOrder.compare($0.key, key) == 0 }
  }

  private mutating func remove(at position: Int) {
    members.remove(at: position)
    places = [:]
    for index in others.indices where others[index].position > position { others[index].position -= 1 }
  }

  private mutating func indexIfMany() {
    guard places.isEmpty, members.count >= 32 else { return }
    places = Dictionary(minimumCapacity: 2 * members.count)
    for (position, member) in members.enumerated() { places[KeyBytes(text: member.key)] = position }
  }

  /// By bytes: Swift's strings compare by canonical equivalence.
  private struct KeyBytes: Hashable {
    let text: String

    static func == (left: KeyBytes, right: KeyBytes) -> Bool { KeyOrder.compare(left.text, right.text) == 0 }

    func hash(into hasher: inout Hasher) {
      let bytes = text.utf8Span.span
      unsafe bytes.withUnsafeBytes { unsafe hasher.combine(bytes: $0) }
    }
  }
}

extension JSONObject: ExpressibleByDictionaryLiteral {
  public init(dictionaryLiteral elements: (String, JSONValue)...) {
    self.init()
    for (key, value) in elements { self[key] = value }
  }
}

extension JSONObject: Equatable {
  /// Same keys, by bytes, in the same order, with equal values.
  public static func == (left: JSONObject, right: JSONObject) -> Bool {
    left.members.elementsEqual(right.members) {
      KeyOrder.compare($0.key, $1.key) == 0 && $0.value == $1.value
    }
      && left.others.elementsEqual(right.others) {
        $0.key == $1.key && $0.value == $1.value && $0.position == $1.position
      }
  }
}
