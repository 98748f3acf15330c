import Tensors

/// The check of one checkpoint, step by step.
struct ContentsCheck {
  let architecture: String
  let rule: ClassRule
  let contents: ClassContents
  let tensors: [TensorInfo]
  let isQuantized: [Bool]
  var report = ContentsReport()
  /// By pattern, and by the numbers in the place of its stars, the tensor that is loaded there.
  private(set) var present: [[UInt8]: [[Int]: Int]] = [:]
  /// The names begin below the base model's prefix.
  private(set) var lacksPrefix = false
  /// Experts that are stored one by one: by parameter, by position among those that are put one below the other, the
  /// tensor of each expert.
  private(set) var experts: [[UInt8]: [Int: [Int: Int]]] = [:]
  private(set) var expertSources: [[UInt8]: Int] = [:]
  private var unknown: [Int] = []
  /// Tensors by layer, among them those that are put together with others.
  private(set) var placements: [(pattern: [UInt8], numbers: [Int], index: Int)] = []
  /// Biases that no layer has.
  var zeroed: [String] = []

  private static let longestName = 256
  /// Buffers that older releases of transformers stored and all of them ignore.
  private static let ignored = [
    "inv_freq", ".attn.bias", ".attn.masked_bias", ".attention.masked_bias", ".attention.bias", "position_ids",
    "num_batches_tracked",
  ]
  /// A base model has it or not, as the class that makes it asks.
  private static let pooler = Array(".pooler.".utf8)

  init(architecture: String, rule: ClassRule, contents: ClassContents, tensors: [TensorInfo], isQuantized: [Bool]) {
    self.architecture = architecture
    self.rule = rule
    self.contents = contents
    self.tensors = tensors
    self.isQuantized = isQuantized
  }

  mutating func run(_ configuration: ModelConfiguration, hasOwnCode: Bool, member stated: (String) -> Int?) {
    let defaults = contents.defaults
    func member(_ path: String) -> Int? {
      guard let value = stated(path) else {
        for size in defaults[path] ?? [] {
          if let value = size.value(stated), value >= 0 { return value }
        }
        return nil
      }
      return value < 0 ? nil : value
    }
    let plain = placeAll()
    if present.isEmpty {
      if !hasOwnCode { addNoneBelongs() }
      return
    }
    // Code that the model brings along may have another class under the same name.
    if hasOwnCode, 2 * unknown.count > tensors.count { return }
    addUnused()
    for index in tensors.indices where tensors[index].elementCount == 0 { checkEmpty(index, plain[index], member) }
    for (index, pattern) in plain.enumerated() {
      if let pattern { checkShape(index, pattern, member) }
    }
    checkExperts(member)
    checkPresence(configuration, member)
    addSurplus(member)
    if let warning = unevenShapes() { report.warnings.append(warning) }
    // Of the others, what must be there has been asked for.
    let names = placements.map { name(of: $0.pattern, $0.numbers) }
    let even = contents.parameters.filter { $0.value.presence == .even }
    if !even.isEmpty, let warning = layerWarning(names, .alike, isHeld: { even[$0.generalised] != nil }) {
      report.warnings.append(warning)
    }
  }

  mutating func add(_ tensor: String, _ problem: String) {
    report.add(.init(tensor: tensor, problem: problem))
  }

  // MARK: - Names

  /// For each tensor the pattern of the parameter that it is, as it is; nil for one that is not known or is made into
  /// others.
  private mutating func placeAll() -> [[UInt8]?] {
    let names = tensors.map { Array($0.name.string.utf8) }
    let placer = Placer(rule: rule, names: names)
    return names.enumerated().map { index, name in
      guard name.count <= Self.longestName else {
        unknown.append(index)
        return nil
      }
      let (renamed, conversion, position) = placer.renamed(name)
      if let conversion {
        let keys = conversion.siblings(of: renamed).map { withPrefix($0) }.filter { pattern(of: $0) != nil }
        if !keys.isEmpty {
          for key in keys {
            insert(key, index)
            if conversion.targets.count == 1 { addExpert(key, name, position, of: conversion.patterns.count, index) }
          }
          return nil
        }
      }
      var key = withPrefix(renamed)
      if pattern(of: key) == nil { key = withPrefix(name) }
      guard let found = pattern(of: key) else {
        unknown.append(index)
        return nil
      }
      insert(key, index)
      return found
    }
  }

  private func pattern(of key: [UInt8]) -> [UInt8]? {
    let general = key.generalised
    return contents.parameters[general] == nil ? nil : general
  }

  private mutating func withPrefix(_ key: [UInt8]) -> [UInt8] {
    let prefix = rule.prefix
    if pattern(of: key) != nil || prefix.isEmpty { return key }
    let dotted = prefix + [UInt8(ascii: ".")]
    if key.starts(with: dotted), pattern(of: Array(key[dotted.count...])) != nil { return Array(key[dotted.count...]) }
    guard pattern(of: dotted + key) != nil else { return key }
    lacksPrefix = true
    return dotted + key
  }

  private mutating func insert(_ key: [UInt8], _ index: Int) {
    present[key.generalised, default: [:]][key.placeNumbers] = index
    placements.append((key.generalised, key.placeNumbers, index))
  }

  private mutating func addExpert(_ key: [UInt8], _ name: [UInt8], _ position: Int, of count: Int, _ index: Int) {
    let numbers = name.placeNumbers
    guard let expert = numbers.last, key.placeNumbers.count < numbers.count else { return }
    experts[key, default: [:]][position, default: [:]][expert] = index
    expertSources[key] = count
  }

  private mutating func addNoneBelongs() {
    let example = contents.parameters.keys.min {
      ($0.count, String(decoding: $0, as: UTF8.self)) < ($1.count, String(decoding: $1, as: UTF8.self))
    }
    add(
      tensors[0].name.string,
      "is no parameter of \(architecture), nor is any other tensor here; one of its own is '\(String(decoding: example ?? [], as: UTF8.self))'"
    )
  }

  private mutating func addUnused() {
    // Where only the base model is known, the rest may be the head's.
    if !contents.isWhole { return }
    report.unused = unknown.map { tensors[$0].name }.filter { name in
      let dotted = [UInt8(ascii: ".")] + name.string.utf8
      return dotted.firstOccurrence(of: Self.pooler) == nil && !Self.ignored.contains { name.hasSuffix($0) }
    }.map(\.string)
  }

  // MARK: - Shapes

  private mutating func checkEmpty(_ index: Int, _ pattern: [UInt8]?, _ member: (String) -> Int?) {
    let shape = tensors[index].shape
    let isMeant = pattern.flatMap { contents.parameters[$0] }.map { parameter in
      parameter.shape.contains { $0.value(member) == 0 }
    }
    if isMeant == true || pattern == nil && unknown.contains(index) { return }
    if shape != [0], pattern != nil { return }
    add(
      tensors[index].name.string,
      "has shape \(shape), no values: what a rank of DeepSpeed's ZeRO-3 or FSDP holds of a weight that is elsewhere")
  }

  private mutating func checkShape(_ index: Int, _ pattern: [UInt8], _ member: (String) -> Int?) {
    guard let parameter = contents.parameters[pattern], !parameter.shape.isEmpty else { return }
    let info = tensors[index]
    if info.shape == [0] { return }
    let wanted = parameter.shape.map { $0.value(member) }
    let texts = parameter.shape.map(\.text)
    func fits(_ shape: [Int]) -> Bool {
      shape.count == wanted.count && zip(shape, wanted).allSatisfy { $1 == nil || $0 == $1 }
    }
    // In 4 bits, weights of Conv1D lie the other way round.
    if fits(info.shape) || isQuantized[index] && fits(info.shape.reversed()) { return }
    guard info.shape.count == wanted.count else {
      if wanted.allSatisfy({ $0 != nil }) {
        add(info.name.string, "has shape \(info.shape), \(architecture) wants \(wanted.count) dimensions")
      }
      return
    }
    let at = zip(info.shape, wanted).enumerated().first { $1.1 != nil && $1.0 != $1.1 }?.offset ?? 0
    add(
      info.name.string,
      "has shape \(info.shape), but by config.json its dimension \(at) is \(wanted[at] ?? 0) (\(texts[at]))")
  }

  // MARK: - Experts one by one

  /// Every expert needs all its tensors, and there is none left out.
  private mutating func checkExperts(_ member: (String) -> Int?) {
    var stacks: [[UInt8]: Set<Int>] = [:]
    for (key, positions) in experts {
      let stack = Array(key.components.dropLast().joined(separator: [0x2E]))
      stacks[stack, default: []].formUnion(positions.values.flatMap(\.keys))
    }
    for (key, positions) in experts.sorted(by: { $0.key.lexicographicallyPrecedes($1.key) }) {
      // The parameters of one stack have the same experts.
      let all = stacks[Array(key.components.dropLast().joined(separator: [0x2E]))] ?? []
      guard let highest = all.max(),
        let sample = positions.min(by: { $0.key < $1.key })?.value.min(by: { $0.key < $1.key })
      else { continue }
      let parameter = String(decoding: key, as: UTF8.self)
      let wanted = contents.parameters[key.generalised]?.shape.map { $0.value(member) } ?? []
      checkExpertShapes(parameter, positions, Array(wanted.dropFirst()), of: expertSources[key] ?? 1)
      if all.count == highest + 1, let count = wanted.first ?? nil, all.count < count {
        add(renumbered(sample.value, expert: all.count), "is missing: config.json says that there are \(count) experts")
      }
      if all.count != highest + 1, let gap = (0...all.count).first(where: { !all.contains($0) }) {
        add(
          renumbered(sample.value, expert: gap), "is missing: '\(parameter)' is put together of experts 0 to \(highest)"
        )
      }
      for position in 0..<(expertSources[key] ?? 1) {
        let there = positions[position] ?? [:]
        guard let missing = all.subtracting(there.keys).min() else { continue }
        let like = there.min { $0.key < $1.key }.map { renumbered($0.value, expert: missing) }
        add(
          like ?? parameter,
          like == nil
            ? "lacks a part: its experts are stored one by one, in \(expertSources[key] ?? 1) tensors each"
            : "is missing: the other experts of '\(parameter)' have it")
      }
    }
  }

  /// All experts have one shape, which is that of their slice.
  private mutating func checkExpertShapes(
    _ parameter: String, _ positions: [Int: [Int: Int]], _ slice: [Int?], of count: Int
  ) {
    // Which dimension of the slice is shared between several tensors is not said here.
    let wanted =
      count == 1
      ? [slice]
      : slice.indices.map { at in
        var part = slice
        part[at] = part[at].map { $0 / count }
        return part
      }
    for (_, there) in positions.sorted(by: { $0.key < $1.key }) {
      let ordered = there.sorted { $0.key < $1.key }.map(\.value)
      guard let first = ordered.first else { continue }
      let shape = tensors[first].shape
      if let other = ordered.first(where: { tensors[$0].shape != shape && tensors[$0].shape != [0] }), shape != [0] {
        add(
          tensors[other].name.string,
          "has shape \(tensors[other].shape), but '\(tensors[first].name)' has shape \(shape): '\(parameter)' is put "
            + "together of both")
        continue
      }
      func fits(_ wanted: [Int?]) -> Bool {
        func fits(_ shape: [Int]) -> Bool { zip(shape, wanted).allSatisfy { $1 == nil || $0 == $1 } }
        return shape.count == wanted.count && (fits(shape) || fits(shape.reversed()))
      }
      if slice.isEmpty || slice.contains(nil) || shape == [0] || wanted.contains(where: fits) { continue }
      add(
        tensors[first].name.string,
        "has shape \(shape), but by config.json each expert's part of '\(parameter)' is "
          + (count == 1 ? "" : "one of \(count) of ") + "\(slice.compactMap(\.self))")
    }
  }

  /// The name of a tensor with another expert's number, which is the last.
  private func renumbered(_ index: Int, expert: Int) -> String {
    var parts = Array(tensors[index].name.string.utf8).components.map(Array.init)
    if let last = parts.lastIndex(where: { $0.generalised.last == UInt8(ascii: "*") }) {
      parts[last] = parts[last].prefix { !(0x30...0x39).contains($0) } + Array(String(expert).utf8)
    }
    return String(decoding: Array(parts.joined(separator: [UInt8(ascii: ".")])), as: UTF8.self)
  }
}

extension [UInt8] {
  /// The numbers that `generalised` puts stars for, in order.
  var placeNumbers: [Int] {
    let star = UInt8(ascii: "*")
    return components.compactMap { part in
      let part = Array(part)
      guard part.generalised.last == star else { return nil }
      return Int(String(decoding: part.drop { !(0x30...0x39).contains($0) }, as: UTF8.self)) ?? -1
    }
  }
}
