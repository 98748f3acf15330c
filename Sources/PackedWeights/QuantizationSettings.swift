import Bytes
package import JSON
import Quantization

/// What `config.json` says of quantization, and of the type of the weights without it.
package enum QuantizationSettings {
  package static let fileName = "config.json"
  package static let fileLimit = 16 << 20

  /// Names that the settings have gone by.
  private static let keys = ["quantization_config", "compression_config"]
  /// A model of several has those of its language model with that.
  private static let parts = ["text_config", "llm_config", "language_config"]

  /// The settings of a method that is named, with its name; nil where config.json has none.
  package static func stated(_ config: JSONValue?) -> (method: String, settings: JSONValue)? {
    guard let config else { return nil }
    for scope in [config] + parts.compactMap({ config[$0] }) {
      for key in keys {
        if let settings = scope[key], let method = settings["quant_method"]?.string { return (method, settings) }
      }
    }
    return nil
  }

  static func removed(from config: JSONValue) -> JSONValue {
    var config = config
    for key in keys { config[key] = nil }
    for part in parts {
      guard var own = config[part], own.object != nil else { continue }
      for key in keys { own[key] = nil }
      config[part] = own
    }
    return config
  }

  /// The type that a loader computes in.
  ///
  /// - Parameter stored: where the configuration says nothing: that of what is stored beside codes.
  /// - Throws: `unsupported` for a type that is none of 16 or 32 bits.
  static func weightType(_ config: JSONValue?, stored: FloatType = .bf16) throws(Failure) -> FloatType {
    guard let config else { return stored }
    for scope in [config] + parts.compactMap({ config[$0] }) {
      for key in ["dtype", "torch_dtype"] {
        guard let value = scope[key], !value.isNull, value.string != "auto" else { continue }
        let name = value.string ?? value.kind.rawValue
        guard let type = FloatType(torchName: name.replacing("torch.", with: "")) else {
          throw Failure(
            .unsupported,
            "'\(key)' is '\(name)', needed for weights that are dequantized is one of "
              + FloatType.names.joined(separator: ", "), file: QuantizationSettings.fileName)
        }
        return type
      }
    }
    return stored
  }
}
