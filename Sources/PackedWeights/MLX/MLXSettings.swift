import Bytes
import JSON
import Quantization

/// The formats of weights in MLX's groups by `quantization` in config.json: that of most, and for modules by path
/// their own, or that they are in none.
struct MLXSettings {
  private let settings: JSONValue
  /// The format of modules that are not named.
  let format: GroupFormat

  /// - Returns: nil where config.json speaks of no groups.
  /// - Throws: `unsupported` for a format that is not known here, `malformed` for what is none.
  init?(_ config: JSONValue?) throws(Failure) {
    guard let settings = Self.stated(config) else { return nil }
    self.settings = settings
    format = try Self.format(settings, "")
  }

  static func areStated(_ config: JSONValue?) -> Bool { stated(config) != nil }

  /// mlx-lm reads `quantization`; `quantization_config` is there for others, and is that of another method where it
  /// names one.
  private static func stated(_ config: JSONValue?) -> JSONValue? {
    for key in ["quantization", "quantization_config"] {
      guard let settings = config?[key], settings.object != nil, settings["quant_method"] == nil,
        settings["group_size"] != nil || settings["bits"] != nil
      else { continue }
      return settings
    }
    return nil
  }

  /// - Parameter module: its path, such as `model.layers.0.mlp.up_proj`.
  /// - Returns: nil for a module that is to stay as it is.
  func format(of module: String) throws(Failure) -> GroupFormat? {
    guard let own = settings[module] else { return format }
    if let isQuantized = own.bool { return isQuantized ? format : nil }
    guard own.object != nil else { throw Self.failure(.malformed, module, "is \(own.kind.rawValue)") }
    return try Self.format(own, module)
  }

  /// Members that a module's own settings leave out are MLX's defaults, not those of most.
  private static func format(_ settings: JSONValue, _ module: String) throws(Failure) -> GroupFormat {
    func number(_ key: String, _ byDefault: Int) throws(Failure) -> Int {
      guard let value = settings[key] else {
        if module.isEmpty { throw failure(.malformed, module, "has no '\(key)'") }
        return byDefault
      }
      guard let number = value.int, number > 0 else {
        let found = value.number.map { "\($0.text)" } ?? value.kind.rawValue
        throw failure(.malformed, module, "\(key) is \(found), needed is a positive whole number")
      }
      return number
    }
    var mode = GroupFormat.Mode.affine
    if let value = settings["mode"] {
      guard let name = value.string else { throw failure(.malformed, module, "mode is \(value.kind.rawValue)") }
      guard let known = GroupFormat.Mode(rawValue: name) else {
        let modes = GroupFormat.Mode.allCases.map(\.rawValue).joined(separator: ", ")
        throw failure(.unsupported, module, "mode '\(name)' is not known here; known are \(modes)")
      }
      mode = known
    }
    let bits = try number("bits", 4)
    let groupSize = try number("group_size", mode == .affine ? 64 : 32)
    guard let format = GroupFormat(mode: mode, bits: bits, groupSize: groupSize) else {
      let known =
        mode == .affine
        ? "\(list(GroupFormat.bits)) bits in groups of \(list(GroupFormat.groupSizes))" : "4 bits in groups of 32"
      throw failure(
        .unsupported, module,
        "\(bits) bits in groups of \(groupSize) are not known here; known in mode "
          + "'\(mode.rawValue)' are \(known)")
    }
    return format
  }

  private static func list(_ numbers: [Int]) -> String { numbers.map(String.init).joined(separator: ", ") }

  private static func failure(_ code: Failure.Code, _ module: String, _ text: String) -> Failure {
    let place = module.isEmpty ? "quantization" : "quantization, '\(module)'"
    return Failure(code, "\(place): \(text)", file: QuantizationSettings.fileName)
  }
}
