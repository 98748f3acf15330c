/// The members of a JSON object in the order they were written.
///
/// Keys are equal when their bytes are; no key occurs twice.
public struct JSONObject: Sendable {
  public private(set) var members: [(key: String, value: JSONValue)]

  public init() { members = [] }

  /// - Parameter members: without repeated keys.
  init(unique members: [(key: String, value: JSONValue)]) { self.members = members }

  /// - Precondition: no key occurs twice. Setting them one by one looks for each among those before.
  package init(distinct members: [(key: String, value: JSONValue)]) { self.members = members }

  public var count: Int { members.count }
  public var isEmpty: Bool { members.isEmpty }
  public var keys: [String] { members.map(\.key) }

  /// The value of `key`. Setting replaces it where it stands, or adds it at the end; nil removes it.
  ///
  /// - Complexity: linear in the number of members.
  public subscript(key: String) -> JSONValue? {
    get { position(of: key).map { members[$0].value } }
    set {
      switch (position(of: key), newValue) {
      case (let position?, let value?): members[position].value = value
      case (let position?, nil): members.remove(at: position)
      case (nil, let value?): members.append((key, value))
      case (nil, nil): break
      }
    }
  }

  private func position(of key: String) -> Int? {
    members.firstIndex { KeyOrder.compare($0.key, key) == 0 }
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
  }
}
