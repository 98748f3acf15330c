import Bytes
import JSON
import Patterns

/// What `quantization_config` of compressed-tensors says: groups of modules, and how the weights of each are stored.
struct CompressedTensorsSettings: Sendable {
  /// The weights of a group of modules.
  struct Weights: Sendable {
    enum Strategy: String, Sendable {
      case tensor, channel, group, block
      case tensorGroup = "tensor_group"
    }

    var bits: Int
    var isFloat: Bool
    var isSymmetric: Bool
    var strategy: Strategy
    /// Elements of a column and of a row that share a scale; nil where only rows or the whole do.
    var block: (rows: Int, columns: Int)?
    /// Whether the group of a column is stored.
    var isOrdered: Bool
    /// Bits of activations.
    var activationBits: Int
  }

  private struct Group {
    var names: Set<String>
    var classes: Set<String>
    var weights: Weights
  }

  private static let formats = [
    "pack-quantized", "float-quantized", "int-quantized", "naive-quantized", "nvfp4-pack-quantized",
    "mxfp4-pack-quantized", "mxfp8-quantized", "mixed-precision",
  ]

  private var groups: [Group] = []
  /// Regular expressions of all groups, and the positions of these; in the order of their texts, by which the library
  /// prefers one to another.
  private var patterns: [(text: String, pattern: LinearPattern, group: Int)] = []

  /// - Throws: `unsupported` for a format or a pattern that is not known here, `malformed` for settings that are none.
  init(_ settings: JSONValue) throws(Failure) {
    try Self.checkFormat(settings["format"])
    for (key, what) in [("sparsity_config", "sparse weights"), ("transform_config", "rotated weights")] {
      guard let own = settings[key], !own.isNull else { continue }
      let isNone =
        own["format"]?.string == "dense" || own.object?.isEmpty == true || own["config_groups"]?.object?.isEmpty == true
      if !isNone { throw Self.failure(.unsupported, "has '\(key)': \(what) are not read") }
    }
    guard let stated = settings["config_groups"]?.object, !stated.isEmpty else {
      throw Self.failure(.malformed, "has no 'config_groups'")
    }
    for name in stated.keys {
      guard let group = stated[name] else { continue }
      try Self.checkFormat(group["format"])
      guard let weights = group["weights"], !weights.isNull else { continue }
      guard let targets = group["targets"]?.array else { throw Self.failure(.malformed, "'\(name)' has no 'targets'") }
      var found = Group(
        names: [], classes: [], weights: try Self.weights(weights, group["input_activations"], name))
      for target in targets {
        guard let text = target.string else { throw Self.failure(.malformed, "'\(name)' has a target that is no text") }
        if text.hasPrefix("re:") {
          patterns.append((text, try Self.pattern(String(text.dropFirst(3))), groups.count))
        } else if text.contains(".") || text.first?.isLowercase == true {
          found.names.insert(text)
        } else {
          found.classes.insert(text)
        }
      }
      groups.append(found)
    }
    // Of groups with the same the last one counts.
    patterns.sort {
      $0.text == $1.text ? $0.group > $1.group : $0.text.utf8.lexicographicallyPrecedes($1.text.utf8)
    }
  }

  /// The weights of a module: of the group that names it, else of the first pattern that matches, else of the one group
  /// for its class.
  ///
  /// - Throws: `malformed` for a module of no group, or of one of several.
  func weights(of module: String) throws(Failure) -> Weights {
    if let group = groups.last(where: { $0.names.contains(module) }) { return group.weights }
    if let found = patterns.first(where: { $0.pattern.matches(module) }) { return groups[found.group].weights }
    let classes = groups.filter { !$0.classes.isEmpty }
    guard let group = classes.last(where: { $0.classes.contains("Linear") }) ?? classes.first else {
      throw Failure(
        .malformed, "is quantized, but no group in \(QuantizationSettings.fileName) has '\(module)' among its targets")
    }
    return group.weights
  }

  // MARK: - Members

  private static func checkFormat(_ value: JSONValue?) throws(Failure) {
    guard let value, !value.isNull else { return }
    guard let format = value.string else { throw failure(.malformed, "'format' is \(value.kind.rawValue)") }
    guard formats.contains(format) else {
      throw failure(.unsupported, "format '\(format)' is not known here; known are \(formats.joined(separator: ", "))")
    }
  }

  private static func weights(
    _ settings: JSONValue, _ activations: JSONValue?, _ group: String
  ) throws(Failure) -> Weights {
    func fault(_ key: String) -> Failure {
      let found = settings[key].map { $0.text(.line) } ?? "missing"
      return failure(.malformed, "'\(group)': '\(key)' of weights is \(found)")
    }
    guard let bits = settings["num_bits"]?.int, (1...8).contains(bits) else { throw fault("num_bits") }
    guard let type = settings["type"]?.string, ["int", "float"].contains(type) else { throw fault("type") }
    let size = settings["group_size"]?.int
    var strategy = Weights.Strategy.tensor
    if let value = settings["strategy"], !value.isNull {
      guard let known = value.string.flatMap(Weights.Strategy.init) else { throw fault("strategy") }
      strategy = known
    } else if let size {
      strategy = size > 0 ? .group : .channel
    }
    var block: (rows: Int, columns: Int)?
    switch strategy {
    case .tensor, .channel: break
    case .group, .tensorGroup:
      guard let size, size > 0 else { throw fault("group_size") }
      block = (1, size)
    case .block:
      guard let sizes = settings["block_structure"]?.array, sizes.count == 2, let rows = sizes[0].int, rows > 0,
        let columns = sizes[1].int, columns > 0
      else { throw fault("block_structure") }
      block = (rows, columns)
    }
    return Weights(
      bits: bits, isFloat: type == "float", isSymmetric: settings["symmetric"]?.bool ?? true, strategy: strategy,
      block: block, isOrdered: ["group", "dynamic"].contains(settings["actorder"]?.string ?? ""),
      activationBits: activations?["num_bits"]?.int ?? 16)
  }

  private static func pattern(_ text: String) throws(Failure) -> LinearPattern {
    guard let tree = LinearPattern.parse(text, .python), let pattern = LinearPattern(tree, .python) else {
      throw failure(.unsupported, "the pattern '\(text)' is not understood here")
    }
    return pattern
  }

  private static func failure(_ code: Failure.Code, _ text: String) -> Failure {
    Failure(code, "quantization_config: \(text)", file: QuantizationSettings.fileName)
  }
}
