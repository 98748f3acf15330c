import Bytes
import JSON

extension Warning {
  /// With all names.
  var json: JSONValue { .string(description) }
}
