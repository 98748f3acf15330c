package import Bytes
import GGUF
package import JSON

extension GGUFValue {
  /// - Parameter limit: elements of an array beyond which only its type and count are told.
  package func json(arrayLimit limit: Int) throws(Failure) -> JSONValue {
    switch self {
    case .uint8, .int8, .uint16, .int16, .uint32, .int32, .int64: return .number(integer ?? 0)
    case .uint64(let value): return Int(exactly: value).map(JSONValue.number) ?? .string("\(value)")
    case .float32(let value): return Self.json(Double("\(value)") ?? Double(value))
    case .float64(let value): return Self.json(value)
    case .bool(let value): return .bool(value)
    // What is not UTF-8 is shown with replacement characters: JSON cannot hold it.
    case .string(let bytes): return .string(String(decoding: bytes, as: UTF8.self))
    case .array(let array):
      guard array.count <= limit else {
        return ["type": .string(array.elementType.name), "count": .number(array.count)]
      }
      var elements: [JSONValue] = []
      for value in try array.values() { elements.append(try value.json(arrayLimit: limit)) }
      return .array(elements)
    }
  }

  /// JSON has no NaN and no infinity.
  private static func json(_ value: Double) -> JSONValue {
    JSONNumber(value).map(JSONValue.number) ?? .string("\(value)")
  }

  /// As `inspect --metadata` shows it, an array by its first elements.
  package func summary() throws(Failure) -> String {
    guard case .array(let array) = self else {
      if let text { return text }
      return try json(arrayLimit: 0).text(.line)
    }
    let shown = 8
    guard array.count > shown else { return try json(arrayLimit: shown).text(.line) }
    var elements: [String] = []
    for value in try array.values(first: shown) { elements.append(try value.json(arrayLimit: shown).text(.line)) }
    return "[\(elements.joined(separator: ", ")), …]"
  }

  package var typeName: String {
    if case .array(let array) = self { "\(array.elementType.name) × \(array.count)" } else { type.name }
  }
}
