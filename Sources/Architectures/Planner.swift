import Bytes
import Patterns
import Tensors

/// Builds a `WeightPlan` step by step.
struct Planner {
  private let tensors: [TensorInfo]
  let names: [[UInt8]]
  let target: LoaderTarget
  private(set) var dispositions: [Disposition]
  /// The model's name of the linear module that a tensor is the weight of.
  private(set) var modules: [[UInt8]?]
  var skipped: Set<[UInt8]> = []
  /// Modules of experts that stay as they are, by what may hold all of a layer.
  var expertModules: [[UInt8]: Set<[UInt8]>] = [:]
  private var converted: Set<[UInt8]> = []
  private var refusal: String?
  private var warnings: [Warning] = []

  init(_ tensors: [TensorInfo], target: LoaderTarget) {
    self.tensors = tensors
    self.target = target
    names = tensors.map { Array($0.name.string.utf8) }
    dispositions = tensors.map { _ in .keep(.notLinear) }
    modules = tensors.map { _ in nil }
  }

  // MARK: - The rule of a class

  /// False, with nothing done, when the checkpoint has not one weight that the class knows.
  ///
  /// - Parameter isBase: it has no head, and may have been saved from below one.
  mutating func apply(_ rule: ClassRule, ties: Bool, isBase: Bool) -> Bool {
    let placer = Placer(rule: rule, names: names)
    let placements = names.map(placer.place)
    let hasWeights = zip(tensors, placements).contains { $0.isMatrix && $1.module != nil }
    guard !hasWeights || placements.contains(where: { $0.kind != nil }) else { return false }
    let last = lastModules(rule, placements)
    var unknown: [Int] = []
    for (index, placement) in placements.enumerated() {
      dispositions[index] = disposition(of: index, placement, isLast: last.contains(placement.module), ties: ties)
      converted.formUnion(placement.convertedModules)
      if placement.kind?.isLinear == true, !placement.isConverted { modules[index] = placement.module }
      if dispositions[index] == .keep(.unknown) { unknown.append(index) }
      if dispositions[index].isKept { alsoSkip(placement, names[index]) }
    }
    skipAbsent(rule, placements, ties: ties)
    if isBase { skipLacking(rule, placements) }
    for (index, module) in modules.enumerated() {
      if let module, dispositions[index].isKept { skipped.insert(module) }
    }
    keepUnknown(unknown, placements)
    if rule.replacesExperts, placements.contains(where: { $0.kind == .expert }) {
      refusal =
        "its experts are stored stacked, and transformers expects them one by one as soon as the checkpoint is "
        + "quantized: nothing would load them"
    }
    return true
  }

  private func disposition(
    of index: Int, _ placement: Placement, isLast: Bool, ties: Bool
  ) -> Disposition {
    let tensor = tensors[index]
    guard let kind = placement.kind else {
      return placement.module != nil && tensor.isMatrix ? .keep(.unknown) : .keep(.notLinear)
    }
    if kind == .expert {
      // Stored one by one they are modules of their own for transformers 4.
      let isOwnModule = placement.isConverted && placement.module != nil && tensor.isMatrix
      return target == .transformers4 && isOwnModule ? .quantize : .keep(.expert)
    }
    if placement.isConverted { return .keep(.converted) }
    switch kind {
    case .outputEmbedding: return .keep(.outputEmbedding)
    case .fp32: return .keep(.fp32Module)
    case .last: return .keep(.lastParameter)
    case .router: return .keep(.router)
    case .tied where ties: return .keep(.tied)
    case .linearSubclass, .other, .expert: return .keep(.notLinear)
    case .linear, .conv1D, .tied:
      guard tensor.isMatrix else { return .keep(.notLinear) }
      if isLast { return .keep(.lastParameter) }
      guard placement.carriesStatistics else { return .keep(.converted) }
      return kind == .conv1D ? .quantizeTransposed : .quantize
    }
  }

  /// The modules that the `$` paths of the rule stand for: those with the highest numbers.
  private func lastModules(_ rule: ClassRule, _ placements: [Placement]) -> Set<[UInt8]?> {
    var found: Set<[UInt8]?> = []
    for path in rule.lastPaths {
      let pattern = path.map { $0 == UInt8(ascii: "$") ? UInt8(ascii: "*") : $0 }
      let candidates = placements.compactMap(\.module).filter { $0.generalised == pattern }
      if let last = candidates.max(by: { $0.numbers.lexicographicallyPrecedes($1.numbers) }) { found.insert(last) }
    }
    return found
  }

  /// The output embedding and its like are linear layers even when a tied weight is not in the file.
  private mutating func skipAbsent(_ rule: ClassRule, _ placements: [Placement], ties: Bool) {
    let stored = Set(placements.compactMap { $0.module?.generalised })
    for (path, kind) in rule.kinds where [.outputEmbedding, .last].contains(kind) || kind == .tied && ties {
      if path.contains(UInt8(ascii: "*")) {
        if kind == .tied || kind == .outputEmbedding && !stored.contains(path) { skipped.formUnion(expanded(path)) }
      } else if !stored.contains(where: { $0.starts(with: path + [UInt8(ascii: ".")]) }) {
        // With modules below it, this path is a container in the model at hand, a layer in another of its class.
        skipped.insert(path)
      }
    }
  }

  /// `path` with its `*` replaced by every number that may stand there.
  private func expanded(_ path: [UInt8]) -> [[UInt8]] {
    let highest = max(15, names.flatMap(\.numbers).max() ?? 0)
    var paths: [[UInt8]] = [path]
    var limit = min(highest, 511)
    while paths.contains(where: { $0.contains(UInt8(ascii: "*")) }) {
      paths = paths.flatMap { path -> [[UInt8]] in
        guard let star = path.firstIndex(of: UInt8(ascii: "*")) else { return [path] }
        return (0...limit).map { Array(path[..<star] + String($0).utf8 + path[(star + 1)...]) }
      }
      // Only layers are many; what stands inside one is a short list.
      limit = 7
    }
    return paths
  }

  /// A weight the rule does not know may be a linear layer that only some configurations have: it stays
  /// float, and is listed, which is right whether it is one or not.
  private mutating func keepUnknown(_ unknown: [Int], _ placements: [Placement]) {
    guard !unknown.isEmpty else { return }
    var matcher = SkipMatcher(target: target)
    for index in unknown {
      if let module = placements[index].module, SkipMatcher.isPlain(module) { matcher.insert(module) }
    }
    let accidents = Set(
      modules.indices.filter { !dispositions[$0].isKept && (modules[$0].map(matcher.matches) ?? false) })
    if accidents.isEmpty {
      for index in unknown {
        if let module = placements[index].module, SkipMatcher.isPlain(module) { skipped.insert(module) }
      }
    }
    warnings.append(
      "\(unknown.count == 1 ? "1 weight belongs" : "\(unknown.count) weights belong") to no known module of the model and "
        + "\(unknown.count == 1 ? "stays as it is" : "stay as they are"): "
        + "\(names: unknown.map { tensors[$0].name.string })"
    )
  }

  /// Modules whose weight a conversion makes stay float, whole: also what the checkpoint stores of them under
  /// the model's own names.
  mutating func keepConverted() {
    for module in converted { skipped.insert(module) }
    for (index, module) in modules.enumerated() {
      if let module, converted.contains(module), !dispositions[index].isKept { dispositions[index] = .keep(.converted) }
    }
  }

  // MARK: - Without a rule

  mutating func applyNameRules(reason: String) {
    for (index, name) in names.enumerated() {
      guard let module = Placer.module(of: name) else { continue }
      dispositions[index] = NameRule.disposition(of: module, tensors[index])
      if target == .transformers4, dispositions[index] == .keep(.expert) { dispositions[index] = .quantize }
      // An embedding is a matrix, but no linear layer: the loader leaves it alone without being told.
      guard tensors[index].isMatrix, SkipMatcher.isPlain(module), dispositions[index] != .keep(.notLinear) else {
        continue
      }
      modules[index] = module
      if dispositions[index].isKept { skipped.insert(module) }
    }
    // Not in the file when it is tied; an entry too many does no harm.
    skipped.insert(Array("lm_head".utf8))
    warnings.append("\(reason); what is quantized is decided by the tensors' names alone")
  }

  // MARK: - What the user keeps

  mutating func keep(_ keeps: [Keep]) {
    for keep in keeps {
      var matched = false
      for index in tensors.indices {
        guard let own = Placer.module(of: names[index]) else { continue }
        guard keep.matches(own) || (modules[index].map(keep.matches) ?? false) else { continue }
        matched = true
        guard !dispositions[index].isKept else { continue }
        dispositions[index] = .keep(.userKept)
        skipped.insert(modules[index] ?? own)
        if target == .transformers4 { skipped.insert(own) }
      }
      if case .glob(let glob) = keep, !matched { warnings.append("--keep '\(glob.text)' matches no module") }
    }
  }

  // MARK: - The list against itself

  /// Takes back every quantized module that an entry of the skip list matches by accident, until none does.
  mutating func resolveCollisions() {
    var colliding: [String] = []
    while true {
      var matcher = SkipMatcher(target: target)
      for path in skipped { matcher.insert(path) }
      var found = false
      for index in tensors.indices where !dispositions[index].isKept {
        let module = modules[index] ?? Placer.module(of: names[index]) ?? []
        guard matcher.matches(module) else { continue }
        dispositions[index] = .keep(.collision)
        skipped.insert(module)
        found = true
        colliding.append(tensors[index].name.string)
      }
      if !found { break }
    }
    if !colliding.isEmpty {
      warnings.append(
        colliding.count == 1
          ? "1 linear weight stays as it is because the end of its name matches a skipped module: \(names: colliding)"
          : "\(colliding.count) linear weights stay as they are because the end of their names matches a skipped module: \(names: colliding)"
      )
    }
  }

  var plan: WeightPlan {
    let experts = tensors.indices.filter { dispositions[$0] == .keep(.expert) }
    return WeightPlan(
      dispositions: dispositions,
      modules: zip(modules, dispositions).map { module, disposition in
        disposition == .keep(.notLinear) ? nil : module.map { String(decoding: $0, as: UTF8.self) }
      },
      skipModules: skipped.filter(SkipMatcher.isPlain).sorted { $0.lexicographicallyPrecedes($1) }
        .map { String(decoding: $0, as: UTF8.self) },
      expertTensors: experts.count,
      // Sizes of tensors of one checkpoint: together at most the files' size.
      expertBytes: experts.reduce(0) { sum, index in
        let (next, overflowed) = sum.addingReportingOverflow(tensors[index].byteCount)
        return overflowed ? Int.max : next
      },
      refusal: refusal, warnings: warnings)
  }
}

extension Disposition {
  package var isKept: Bool {
    if case .keep = self { true } else { false }
  }
}

extension [UInt8] {
  /// The components that are whole numbers, in order.
  fileprivate var numbers: [Int] {
    components.compactMap { $0.isNumber ? Int(String(decoding: $0, as: UTF8.self)) : nil }
  }
}

extension Keep {
  package func matches(_ module: [UInt8]) -> Bool {
    switch self {
    case .glob(let glob): glob.matches(module)
    case .towers:
      Self.towerWords.contains { word in
        let dot = UInt8(ascii: ".")
        return ([dot] + module + [dot]).firstOccurrence(of: [dot] + Array(word.utf8) + [dot]) != nil
      }
    }
  }
}
