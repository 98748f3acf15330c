import Bytes
import JSON
import Patterns

/// How AutoRound has stored weights, by its `packing_format`: mostly as others do.
enum AutoRoundPacking: Sendable, Equatable {
  /// As GPTQ does, with so much to be added to zero points.
  case gptq(increment: Int)
  case awq
  /// As FP8 is stored elsewhere.
  case bytes
  /// As compressed-tensors stores MXFP4, MXFP8 and NVFP4.
  case floats

  private static let methods = ["auto-round", "intel/auto-round"]

  /// - Returns: nil for another method, and for a format that is not known here, which `AutoRoundLayout` refuses.
  init?(_ stated: (method: String, settings: JSONValue)?) {
    guard let (method, settings) = stated, Self.methods.contains(method) else { return nil }
    let kind = settings["data_type"]?.string ?? "int"
    switch settings["packing_format"]?.string {
    case nil where kind.hasPrefix("fp"), "auto_round:fp8", "auto_round:fp8_static": self = .bytes
    case nil, "auto", "auto_round:auto_gptq", "auto_round:gptq": self = .gptq(increment: 1)
    case "auto_round" where kind.hasPrefix("int"), "auto_round:gptqmodel": self = .gptq(increment: 0)
    case "auto_round:auto_awq", "auto_round:awq": self = .awq
    case "auto_round:llm_compressor": self = .floats
    default: return nil
    }
  }

  /// What is added to the zero points of GPTQ; nil for another packing.
  var increment: Int? { if case .gptq(let increment) = self { increment } else { nil } }

  static func isStated(_ config: JSONValue?) -> Bool {
    QuantizationSettings.stated(config).map { methods.contains($0.method) } ?? false
  }
}

/// What AutoRound says of modules by their names, or by patterns that are searched for in these.
struct AutoRoundExceptions: Sendable {
  private var exact: [String: JSONValue] = [:]
  private var patterns: [(pattern: LinearPattern, settings: JSONValue)] = []

  /// - Throws: `unsupported` for a pattern that is not understood here.
  init(_ settings: JSONValue, file: String) throws(Failure) {
    guard let modules = settings["extra_config"]?.object else { return }
    for key in modules.keys {
      guard let stated = modules[key] else { continue }
      exact[key] = stated
      let isName = key.allSatisfy { $0 == "." || $0 == "_" || $0.isLetter || $0.isNumber }
      if isName || stated.object?.isEmpty == true { continue }
      guard let pattern = LinearPattern(searching: key, .python) else {
        throw Failure(.unsupported, "'extra_config': the pattern '\(key)' is not understood here", file: file)
      }
      patterns.append((pattern, stated))
    }
  }

  /// The first that names the module decides.
  func settings(of module: String) -> JSONValue? {
    exact[module] ?? patterns.first { $0.pattern.matches(module) }?.settings
  }
}
