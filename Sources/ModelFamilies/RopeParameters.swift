import Bytes
import JSON

/// `rope_parameters`, or the older `rope_scaling` and `rope_theta`, as transformers completes them.
package struct RopeParameters {
  let type: String
  let theta: Double?
  /// The base of layers with a sliding window, where they have one of their own.
  let slidingTheta: Double?
  private let values: JSONObject
  private let parameters: ModelParameters

  /// Types whose context length before the scaling is `max_position_embeddings` unless they say otherwise.
  private static let scaled = ["llama3", "yarn", "longrope"]

  init(_ parameters: ModelParameters, _ form: RopeForm) throws(Failure) {
    self.parameters = parameters
    let older = try parameters.object("rope_scaling") ?? JSONObject()
    let newer = try parameters.object("rope_parameters") ?? JSONObject()
    var values: JSONObject
    var sliding: JSONObject?
    let isNested = newer["full_attention"] != nil || newer["sliding_attention"] != nil
    if case .byLayerType = form {
      values = try Self.object(newer, "full_attention") ?? JSONObject()
      // A flat object, as older files have it, scales the layers that see everything.
      if !isNested { for (key, value) in newer.members { values[key] = value } }
      for (key, value) in older.members { values[key] = value }
      sliding = try Self.object(newer, "sliding_attention") ?? JSONObject()
      if sliding?["rope_theta"] == nil { sliding?["rope_theta"] = parameters["rope_local_base_freq"] }
    } else {
      values = older.isEmpty ? newer : older
      if isNested {
        values = try Self.object(newer, "full_attention") ?? JSONObject()
        sliding = try Self.object(newer, "sliding_attention")
      }
    }
    if values["rope_theta"] == nil { values["rope_theta"] = parameters["rope_theta"] }
    if values["partial_rotary_factor"] == nil { values["partial_rotary_factor"] = parameters["partial_rotary_factor"] }
    self.type = try Self.text(values["rope_type"] ?? values["type"]) ?? "default"
    if case .longFactors = form {
      values["original_max_position_embeddings"] =
        parameters["original_max_position_embeddings"] ?? values["original_max_position_embeddings"]
    } else if Self.scaled.contains(type), values["original_max_position_embeddings"] == nil {
      values["original_max_position_embeddings"] = parameters["max_position_embeddings"]
    }
    self.values = values
    self.theta = try Self.number("rope_theta", values["rope_theta"])
    self.slidingTheta = try sliding.flatMap { object throws(Failure) in
      try Self.number("rope_theta", object["rope_theta"])
    }
  }

  func number(_ key: String) throws(Failure) -> Double? { try Self.number(key, values[key]) }

  func integer(_ key: String) throws(Failure) -> Int? {
    guard let value = values[key], !value.isNull else { return nil }
    guard let integer = value.int else { throw Self.wrong(key, value, "a whole number") }
    return integer
  }

  func numbers(_ key: String) throws(Failure) -> [Double]? {
    guard let value = values[key], !value.isNull else { return nil }
    guard let array = value.array else { throw Self.wrong(key, value, "an array") }
    var numbers: [Double] = []
    for element in array {
      guard let number = element.double else { throw Self.wrong(key, element, "numbers") }
      numbers.append(number)
    }
    return numbers
  }

  func required<T>(_ key: String, _ value: T?) throws(Failure) -> T {
    guard let value else {
      throw Failure(
        .malformed, "rope scaling '\(type.printable(limit: 64))' has no \(key)", file: ModelParameters.file)
    }
    return value
  }

  private static func object(_ object: JSONObject, _ key: String) throws(Failure) -> JSONObject? {
    guard let value = object[key], !value.isNull else { return nil }
    guard let inner = value.object else { throw wrong(key, value, "an object") }
    return inner
  }

  private static func text(_ value: JSONValue?) throws(Failure) -> String? {
    guard let value, !value.isNull else { return nil }
    guard let text = value.string else { throw wrong("rope_type", value, "a string") }
    return text
  }

  private static func number(_ key: String, _ value: JSONValue?) throws(Failure) -> Double? {
    guard let value, !value.isNull else { return nil }
    guard let number = value.double else { throw wrong(key, value, "a number") }
    return number
  }

  private static func wrong(_ key: String, _ value: JSONValue, _ expected: String) -> Failure {
    Failure(
      .malformed, "rope parameters, \(key): found \(value.kind.rawValue), expected \(expected)",
      file: ModelParameters.file)
  }
}
