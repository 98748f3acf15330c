package import Bytes

extension Warning {
  /// The warning with all the names that it counts.
  package var json: JSONValue { .string(description) }
}
