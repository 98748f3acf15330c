package import Bytes
package import JSON

/// The members of `config.json`, completed by transformers' defaults, under transformers' own names.
package struct ModelParameters {
  package static let file = "config.json"

  package let object: JSONObject

  /// - Parameter object: complete, under the common names.
  package init(_ object: JSONObject) { self.object = object }

  /// - Throws: `malformed` when the configuration, or its `text_config`, is no object.
  package init(_ config: JSONValue, family: Family) throws(Failure) {
    try self.init(config, defaults: family.defaults.map { ($0.key, $0.value) }, spellings: family.spellings)
  }

  /// - Parameters:
  ///   - defaults: by common name.
  ///   - spellings: the common name, and what the configuration calls it.
  /// - Throws: `malformed` when the configuration, or its `text_config`, is no object.
  package init(
    _ config: JSONValue, defaults: [(key: String, value: Constant)], spellings: KeyValuePairs<String, String>
  ) throws(Failure) {
    guard var written = config.object else {
      throw Failure(.malformed, "found \(config.kind.rawValue), expected an object", file: Self.file)
    }
    if let text = written["text_config"], !text.isNull {
      guard let inner = text.object else {
        throw Failure(.malformed, "text_config: found \(text.kind.rawValue), expected an object", file: Self.file)
      }
      for (key, value) in inner.members { written[key] = value }
    }
    var object = JSONObject()
    for (key, value) in defaults { object[key] = value.json }
    let canonical = Dictionary(spellings.map { ($0.value, $0.key) }) { first, _ in first }
    for (key, value) in written.members { object[canonical[key] ?? key] = value }
    self.object = object
  }

  /// Nil when it is absent or null.
  package subscript(key: String) -> JSONValue? {
    guard let value = object[key], !value.isNull else { return nil }
    return value
  }

  package func integer(_ key: String) throws(Failure) -> Int? {
    guard let value = self[key] else { return nil }
    guard let integer = value.int else { throw failure(key, found: value, "a whole number") }
    return integer
  }

  package func number(_ key: String) throws(Failure) -> Double? {
    guard let value = self[key] else { return nil }
    guard let number = value.double else { throw failure(key, found: value, "a number") }
    return number
  }

  package func bool(_ key: String) throws(Failure) -> Bool? {
    guard let value = self[key] else { return nil }
    guard let bool = value.bool else { throw failure(key, found: value, "true or false") }
    return bool
  }

  package func text(_ key: String) throws(Failure) -> String? {
    guard let value = self[key] else { return nil }
    guard let text = value.string else { throw failure(key, found: value, "a string") }
    return text
  }

  package func object(_ key: String) throws(Failure) -> JSONObject? {
    guard let value = self[key] else { return nil }
    guard let object = value.object else { throw failure(key, found: value, "an object") }
    return object
  }

  package func array(_ key: String) throws(Failure) -> [JSONValue]? {
    guard let value = self[key] else { return nil }
    guard let array = value.array else { throw failure(key, found: value, "an array") }
    return array
  }

  /// A warning for each value that GGUF has no key for and its readers assume to be another one.
  package func unexpected(_ constants: KeyValuePairs<String, Constant>) throws(Failure) -> [Warning] {
    constants.compactMap { key, constant in
      guard let value = self[key], value != constant.json else { return nil }
      // An older word for the same function, in Gemma's first configurations.
      if value.string == "gelu", constant.json.string == "gelu_pytorch_tanh" { return nil }
      let shown = value.text(.compact).printable(limit: 64)
      return "\(key) \(shown) is left out: GGUF has no key for it, and its readers take \(constant.json.text(.compact))"
    }
  }

  /// A length from 1 to 2^31 − 1, or to the limit.
  package func optionalSize(_ key: String, limit: Int = Int(Int32.max)) throws(Failure) -> Int? {
    guard let value = try integer(key) else { return nil }
    guard value >= 1, value <= limit else {
      throw failure(key, "found \(value), allowed are 1 to \(limit)")
    }
    return value
  }

  package func size(_ key: String, limit: Int = Int(Int32.max)) throws(Failure) -> Int {
    guard let value = try optionalSize(key, limit: limit) else { throw failure(key, "is missing") }
    return value
  }

  package func failure(_ key: String, _ message: String) -> Failure {
    Failure(.malformed, "\(key): \(message)", file: Self.file)
  }

  private func failure(_ key: String, found value: JSONValue, _ expected: String) -> Failure {
    let shown = value.number.map { $0.text.printable(limit: 40) } ?? value.kind.rawValue
    return failure(key, "found \(shown), expected \(expected)")
  }
}
