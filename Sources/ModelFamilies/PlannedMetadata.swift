package import Bytes
package import GGUF

/// Collects key-value pairs: a key that is set again keeps its place, an empty string or array is none.
package struct PlannedMetadata {
  package private(set) var pairs: [(key: String, value: GGUFValue)] = []
  /// How many pairs precede `general.file_type`.
  package var fileTypePosition = 0
  /// The prefix of every key.
  package var prefix = ""

  package mutating func set(_ key: String, _ value: GGUFValue) {
    switch value {
    case .string(let bytes) where bytes.isEmpty: return
    case .array(let array) where array.count == 0: return
    default: break
    }
    let key = prefix + key
    if let position = pairs.firstIndex(where: { $0.key.utf8.elementsEqual(key.utf8) }) {
      pairs[position].value = value
    } else {
      pairs.append((key, value))
    }
  }

  package mutating func set(_ key: String, count: Int) throws(Failure) {
    guard let value = UInt32(exactly: count) else { throw outOfRange(key, String(count), "0 to \(UInt32.max)") }
    set(key, .uint32(value))
  }

  package mutating func set(_ key: String, signed: Int) throws(Failure) {
    guard let value = Int32(exactly: signed) else {
      throw outOfRange(key, String(signed), "\(Int32.min) to \(Int32.max)")
    }
    set(key, .int32(value))
  }

  package mutating func set(_ key: String, number: Double) throws(Failure) {
    let value = Float(number)
    guard value.isFinite else { throw outOfRange(key, String(number), "finite 32-bit numbers") }
    set(key, .float32(value))
  }

  private func outOfRange(_ key: String, _ found: String, _ allowed: String) -> Failure {
    Failure(.malformed, "metadata '\(prefix)\(key)': found \(found), allowed are \(allowed)")
  }
}
