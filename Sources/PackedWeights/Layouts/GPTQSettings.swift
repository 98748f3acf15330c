import Bytes
import JSON
import Patterns

/// What the settings of GPTQ and AWQ say: how wide codes are, and what modules have otherwise.
struct GPTQSettings: Sendable {
  struct Module: Sendable {
    var bits: Int
    /// Columns that share a scale; -1 for all.
    var groupSize: Int
  }

  private let own: Module
  /// The first that matches a module decides; nil leaves it as it is.
  private var dynamic: [(pattern: LinearPattern, module: Module?)] = []
  private let exceptions: AutoRoundExceptions
  private let file: String

  /// - Parameter file: that the settings are from.
  init(_ settings: JSONValue, file: String) throws(Failure) {
    self.file = file
    own = try Self.module(settings, nil, file)
    exceptions = try AutoRoundExceptions(settings, file: file)
    guard let rules = settings["dynamic"]?.object else { return }
    for key in rules.keys {
      guard let rule = rules[key] else { continue }
      let text = key.hasPrefix("+:") || key.hasPrefix("-:") ? String(key.dropFirst(2)) : key
      guard let tree = LinearPattern.parse(text, .python), let pattern = LinearPattern(tree, .python) else {
        throw Failure(.unsupported, "'dynamic': the pattern '\(text)' is not understood here", file: file)
      }
      dynamic.append((pattern, key.hasPrefix("-:") ? nil : try Self.module(rule, own, file)))
    }
  }

  private static func module(_ settings: JSONValue, _ byDefault: Module?, _ file: String) throws(Failure) -> Module {
    func number(_ keys: [String], _ byDefault: Int?) throws(Failure) -> Int {
      guard let key = keys.first(where: { settings[$0] != nil }), let value = settings[key] else {
        if let byDefault { return byDefault }
        throw Failure(.malformed, "the settings of quantization have no '\(keys[0])'", file: file)
      }
      guard let number = value.int, number > 0 || number == -1 else {
        throw Failure(.malformed, "'\(key)' is \(value.text(.line)), needed is a positive whole number", file: file)
      }
      return number
    }
    return Module(
      bits: try number(["bits", "w_bit"], byDefault?.bits),
      groupSize: try number(["group_size", "q_group_size"], byDefault?.groupSize))
  }

  /// - Throws: `malformed` for a module that is said to stay as it is.
  func module(_ name: String) throws(Failure) -> Module {
    if let stated = exceptions.settings(of: name) { return try Self.module(stated, own, file) }
    guard let rule = dynamic.first(where: { $0.pattern.matches(name) }) else { return own }
    guard let module = rule.module else {
      throw Failure(.malformed, "is quantized, but '\(file)' says that '\(name)' is not")
    }
    return module
  }
}
