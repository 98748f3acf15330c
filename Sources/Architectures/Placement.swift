/// Where a tensor of a checkpoint belongs in the model.
struct Placement {
  /// The module whose weight it is, by the model's name; nil when it is not a weight.
  var module: [UInt8]?
  /// nil when the model has no such parameter.
  var kind: ModuleKind?
  /// The linear modules whose weights a conversion makes of it and others.
  var convertedModules: [[UInt8]] = []
  var isConverted = false
  /// False when the loader would not find the statistics of packed codes under the same module.
  var carriesStatistics = true
}

/// Finds the place of a tensor as transformers 5 does when it loads a checkpoint.
struct Placer {
  let rule: ClassRule
  /// Renaming pairs whose first pattern occurs in the checkpoint.
  private var activePairs: Set<Int> = []

  /// Longer names belong to no parameter; the limit keeps the matching of patterns cheap.
  private static let longestName = 256
  private static let weight = Array(".weight".utf8)
  private static let statistics = Array(".absmax".utf8)

  init(rule: ClassRule, names: [[UInt8]]) {
    self.rule = rule
    for (index, renaming) in rule.renamings.enumerated() where renaming.kind == .pairs {
      let occurs = names.contains {
        $0.count <= Self.longestName && renaming.applied(to: $0, basePrefix: rule.prefix)?.pattern == 0
      }
      if occurs { activePairs.insert(index) }
    }
  }

  func place(_ name: [UInt8]) -> Placement {
    guard name.count <= Self.longestName else { return Placement() }
    let (renamed, conversion, _) = renamed(name)
    var key = withBasePrefix(renamed)
    var placement = Placement()
    if let conversion {
      let keys = conversion.siblings(of: renamed).map(withBasePrefix)
      if keys.contains(where: isKnown) {
        placement.isConverted = true
        placement.kind = keys.compactMap(kind).first
        placement.convertedModules = keys.compactMap(Self.module).filter { rule.kind(of: $0)?.isLinear == true }
        placement.module = Self.module(of: name)
        return placement
      }
    }
    if !isKnown(key), isKnown(name) { key = name }
    placement.kind = kind(of: key)
    placement.module = Self.module(of: key)
    if placement.kind?.isLinear == true {
      placement.carriesStatistics = Self.module(of: name) != nil && keepsStatistics(name, with: key)
    }
    return placement
  }

  /// The path in front of `.weight`.
  static func module(of key: [UInt8]) -> [UInt8]? {
    key.count > weight.count && key.suffix(weight.count).elementsEqual(weight) ? Array(key.dropLast(weight.count)) : nil
  }

  func kind(of key: [UInt8]) -> ModuleKind? {
    if let module = Self.module(of: key), let kind = rule.kind(of: module), kind != .expert { return kind }
    return rule.kind(of: key) == .expert ? .expert : nil
  }

  func isKnown(_ key: [UInt8]) -> Bool { kind(of: key) != nil }

  /// All renamings in order, then at most one conversion.
  func renamed(_ name: [UInt8]) -> (name: [UInt8], conversion: Renaming?, pattern: Int) {
    var key = name
    for (index, renaming) in rule.renamings.enumerated() where renaming.kind != .conversion {
      guard let (next, pattern) = renaming.applied(to: key, basePrefix: rule.prefix) else { continue }
      if renaming.kind == .pairs, pattern > 0, !activePairs.contains(index) { continue }
      key = next
    }
    for renaming in rule.renamings where renaming.kind == .conversion {
      if let (next, pattern) = renaming.applied(to: key, basePrefix: rule.prefix) { return (next, renaming, pattern) }
    }
    return (key, nil, 0)
  }

  /// The base model's prefix is taken away or put in front when that makes a parameter's name of it.
  func withBasePrefix(_ key: [UInt8]) -> [UInt8] {
    let prefix = rule.prefix
    if prefix.isEmpty { return key }
    if key.starts(with: prefix), key.count > prefix.count {
      let shorter = Array(key[(prefix.count + 1)...])
      if isKnown(shorter) { return shorter }
    }
    let longer = prefix + [UInt8(ascii: ".")] + key
    return isKnown(longer) ? longer : key
  }

  private func keepsStatistics(_ name: [UInt8], with key: [UInt8]) -> Bool {
    // transformers looks for the first `weight` that ends a word, and takes that for the packed codes.
    let isAmbiguous = Self.module(of: key)?.components.contains { $0.suffix(6).elementsEqual("weight".utf8) }
    if isAmbiguous == true { return false }
    let (renamed, conversion, _) = renamed(name + Self.statistics)
    guard conversion == nil, renamed.suffix(Self.statistics.count).elementsEqual(Self.statistics) else { return false }
    return withBasePrefix(Array(renamed.dropLast(Self.statistics.count))) == key
  }
}
