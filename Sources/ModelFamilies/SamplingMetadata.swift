package import Bytes
package import GGUF
package import JSON

/// `general.sampling.*`: what `generation_config.json` recommends.
package struct SamplingMetadata {
  package static let file = "generation_config.json"

  private enum Form { case text, integer, number }

  /// GGUF's key, the file's keys (the first that is there counts), and the type.
  private static let rows: [(key: String, names: [String], form: Form)] = [
    ("sequence", ["sequence"], .text), ("top_k", ["top_k"], .integer), ("top_p", ["top_p"], .number),
    ("min_p", ["min_p"], .number), ("xtc_probability", ["xtc_probability"], .number),
    ("xtc_threshold", ["xtc_threshold"], .number), ("temp", ["temperature"], .number),
    ("penalty_last_n", ["penalty_last_n"], .integer),
    ("penalty_repeat", ["penalty_repeat", "repetition_penalty"], .number), ("mirostat", ["mirostat"], .integer),
    ("mirostat_tau", ["mirostat_tau"], .number), ("mirostat_eta", ["mirostat_eta"], .number),
  ]

  /// The sampling parameters that a file recommends, under the names of transformers.
  package static func configuration(_ metadata: GGUFMetadata) throws(Failure) -> JSONObject {
    var object = JSONObject()
    for (key, names, form) in rows {
      let key = "general.sampling." + key
      guard metadata[key] != nil, let name = names.last else { continue }
      switch form {
      case .text: if let text = try metadata.text(key) { object[name] = .string(text) }
      case .integer: if let integer = try metadata.integer(key) { object[name] = .number(integer) }
      case .number:
        // In the fewest digits that are the same number in 32 bits.
        guard let number = try metadata.number(key) else { continue }
        let short = Float(number)
        guard short.isFinite || !number.isFinite else {
          throw Failure(.malformed, "metadata '\(key)' is \(number), expected a number of 32 bits")
        }
        object[name] = .number(JSONNumber(python: Double(String(short)) ?? number))
      }
    }
    return object
  }

  private let config: JSONValue

  /// Nil, with a warning, for a file that is not JSON: some models have none that is.
  package init?(_ bytes: [UInt8], warnings: inout [Warning]) {
    do throws(Failure) {
      config = try JSONValue(parsing: bytes, .python, file: Self.file)
    } catch {
      warnings.append("\(error); its recommendations for sampling are left out")
      return nil
    }
  }

  /// - Throws: `malformed` for a value of another type than its key has, or out of that type's range.
  package func write(to metadata: inout PlannedMetadata) throws(Failure) {
    for (key, names, form) in Self.rows {
      guard let name = names.first(where: { config[$0] != nil }), let value = config[name], !value.isNull else {
        continue
      }
      func wrong(_ expected: String) -> Failure {
        Failure(.malformed, "\(name): found \(value.kind.rawValue), expected \(expected)", file: Self.file)
      }
      let key = "general.sampling." + key
      switch form {
      case .text:
        guard let text = value.string else { throw wrong("a string") }
        metadata.set(key, .text(text))
      case .integer:
        guard let integer = value.int else { throw wrong("a whole number") }
        try metadata.set(key, signed: integer)
      case .number:
        guard let number = value.number else { throw wrong("a number") }
        if let infinite = number.notFinite {
          metadata.set(key, .float32(Float(infinite)))
        } else {
          guard let number = number.double else { throw wrong("a number") }
          try metadata.set(key, number: number)
        }
      }
    }
  }
}
