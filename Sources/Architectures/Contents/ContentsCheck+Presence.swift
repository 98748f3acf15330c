import Bytes
import Tensors

/// Which parameters must be there.
extension ContentsCheck {
  mutating func checkPresence(_ configuration: ModelConfiguration, _ member: (String) -> Int?) {
    let stacks = Stacks(contents, present)
    let isSubset = !stacks.absent.isEmpty && !stacks.present.isEmpty
    if isSubset {
      let expected = stacks.absent.filter { (contents.counts[$0].flatMap(member) ?? 0) > 0 }
      if !expected.isEmpty {
        let names = expected.map { String(decoding: $0, as: UTF8.self) }.sorted()
        report.warnings.append(
          "nothing of \(names: names) is there, so a loader of \(architecture) begins with random values for it")
      }
    }
    for container in stacks.containers.keys.sorted(by: { $0.lexicographicallyPrecedes($1) }) {
      guard let members = stacks.containers[container] else { continue }
      if container.isEmpty {
        checkRoot(members, stacks, isSubset: isSubset, configuration, member)
      } else {
        checkContainer(container, members, stacks, isSubset: isSubset, member)
      }
    }
    checkHead(configuration)
    if !zeroed.isEmpty {
      report.warnings.append("biases that are not there, so that loaders take zeros: \(names: zeroed)")
    }
  }

  // MARK: - Layers

  private mutating func checkContainer(
    _ container: [UInt8], _ members: [[UInt8]], _ stacks: Stacks, isSubset: Bool, _ member: (String) -> Int?
  ) {
    var instances = Set(members.flatMap { present[$0].map { Array($0.keys) } ?? [] })
    // The path without `.*`, when it has no other number.
    let stack = Array(container.dropLast(2))
    let isLayer = !stack.contains(UInt8(ascii: "*"))
    let count = isLayer ? contents.counts[stack].flatMap(member) : nil
    if isLayer {
      if instances.isEmpty, isSubset { return }
      if instances.isEmpty, count == nil { instances.insert([0]) }
      if let count {
        // Layers beyond them are for other uses, such as predicting further tokens.
        instances = instances.filter { ($0.first ?? 0) < count }
        // The first layer without anything ends it: however many are stated.
        if let gap = (0...instances.count).first(where: { !instances.contains([$0]) }), gap < count {
          instances.insert([gap])
        }
      }
    } else if let count = contents.counts[stack].flatMap(member) {
      addGaps(&instances, count)
    }
    let ordered = instances.sorted { $0.lexicographicallyPrecedes($1) }
    var groups: [Int: [[UInt8]]] = [:]
    var followers: [Int: [[UInt8]]] = [:]
    for pattern in members.sorted(by: { $0.lexicographicallyPrecedes($1) }) {
      guard let parameter = contents.parameters[pattern] else { continue }
      if parameter.mayBeNowhere, present[pattern]?.keys.contains(where: instances.contains) != true { continue }
      switch parameter.presence {
      case .required: need(pattern, ordered, "\(architecture) has it in every layer")
      case .requiredAfterFirst:
        need(pattern, ordered.filter { $0.last != 0 }, "\(architecture) has it in every layer but the first")
      case .requiredAt(let places):
        let meant = Set(instances.map { zip($0, places).map { $1 ?? $0 } })
        need(pattern, meant.sorted { $0.lexicographicallyPrecedes($1) }, "every \(architecture) has it")
      case .group(let number): groups[number, default: []].append(pattern)
      case .follows(let number): followers[number, default: []].append(pattern)
      default: break
      }
    }
    for (number, patterns) in groups.sorted(by: { $0.key < $1.key }) {
      let some = Set(patterns.flatMap { present[$0].map { Array($0.keys) } ?? [] }).intersection(instances)
      let there = some.sorted { $0.lexicographicallyPrecedes($1) }
      // A bias that no layer has is none of this model.
      for pattern in patterns + (followers[number] ?? []) where present[pattern] != nil || !pattern.isBias {
        need(pattern, there, "others that go with it are there")
      }
    }
    for choice in contents.choices where choice.container == container {
      checkChoice(choice, groups, ordered)
    }
  }

  private mutating func need(_ pattern: [UInt8], _ instances: [[Int]], _ reason: String) {
    let there = present[pattern] ?? [:]
    guard let missing = instances.first(where: { there[$0] == nil }) else { return }
    if there.isEmpty, pattern.isBias {
      zeroed.append(filled(pattern, missing))
      return
    }
    add(filled(pattern, missing), "is missing: \(reason)")
  }

  // MARK: - Outside of layers

  private static let embeddings = ["embed", "wte."].map { Array($0.utf8) }
  private static let positions = Array("position_embeddings.weight".utf8)

  private mutating func checkRoot(
    _ members: [[UInt8]], _ stacks: Stacks, isSubset: Bool, _ configuration: ModelConfiguration,
    _ member: (String) -> Int?
  ) {
    let dot = UInt8(ascii: ".")
    let base = rule.prefix + [dot]
    let parents = stacks.present.map { stack -> [UInt8] in
      let parts = stack.components.dropLast()
      return parts.isEmpty ? [] : Array(parts.joined(separator: [dot])) + [dot]
    }
    let heads = headShapes
    checkRootGroups(members)
    for pattern in members.sorted(by: { $0.lexicographicallyPrecedes($1) }) where present[pattern] == nil {
      guard let parameter = contents.parameters[pattern], parameter.presence == .required else { continue }
      if lacksPrefix, !pattern.starts(with: base) { continue }
      // A base may be built without what comes after its layers.
      if !contents.isWhole, !Self.embeddings.contains(where: { pattern.firstOccurrence(of: $0) != nil }) { continue }
      // Positions that are relative or rotary have no table.
      if pattern.suffix(Self.positions.count).elementsEqual(Self.positions), member("position_embedding_type") == 0 {
        continue
      }
      // A head for no labels.
      if parameter.shape.contains(where: { $0.value(member) == 0 }) { continue }
      if isSubset, !parents.contains(where: pattern.starts) { continue }
      // A tied embedding may be stored as the output embedding.
      if mayTieHead(configuration), heads.contains(where: { $0 == parameter.shape }) { continue }
      // Of an encoder and a decoder with one embedding, either may have it.
      if ties(configuration) || !contents.alwaysTied.isEmpty, pattern.suffix(13).elementsEqual("shared.weight".utf8),
        tensors.contains(where: { $0.name.string.hasSuffix("embed_tokens.weight") })
      {
        continue
      }
      if pattern.isBias {
        zeroed.append(filled(pattern, []))
      } else {
        add(filled(pattern, []), "is missing: every \(architecture) has it")
      }
    }
  }

  /// Checks groups of tensors that come together: with one of a module's tensors, the module is there.
  private mutating func checkRootGroups(_ members: [[UInt8]]) {
    var groups: [Int: [[UInt8]]] = [:]
    for pattern in members {
      guard case .group(let number) = contents.parameters[pattern]?.presence else { continue }
      groups[number, default: []].append(pattern)
    }
    var lacking: [String] = []
    for patterns in groups.values {
      let there = Set(patterns.filter { present[$0] != nil })
      if there.isEmpty { continue }
      for pattern in patterns.sorted(by: { $0.lexicographicallyPrecedes($1) })
      where !there.contains(pattern) {
        if !pattern.isBias, there.contains(pattern.dropLast("weight".utf8.count) + Array("bias".utf8)) {
          add(filled(pattern, []), "is missing: its bias is there")
        } else {
          lacking.append(filled(pattern, []))
        }
      }
    }
    if !lacking.isEmpty {
      report.warnings.append("what goes with these is there, and they are not: \(names: lacking.sorted())")
    }
  }

  private func ties(_ configuration: ModelConfiguration) -> Bool {
    configuration.tiesWordEmbeddings ?? configuration.textTiesWordEmbeddings ?? rule.tiesByDefault
  }

  private func mayTieHead(_ configuration: ModelConfiguration) -> Bool {
    ties(configuration) || headWeights.contains(where: contents.alwaysTied.contains)
  }

  private var headWeights: [[UInt8]] {
    rule.kinds.filter { $0.value == .outputEmbedding }.map { $0.key + Array(".weight".utf8) }
  }

  /// The shapes of the output embeddings that are stored.
  private var headShapes: [[ConfiguredSize]] {
    headWeights.filter { present[$0] != nil }.compactMap { contents.parameters[$0]?.shape }
  }

  /// The output embedding is not the input embedding, and has as many rows.
  private mutating func checkHead(_ configuration: ModelConfiguration) {
    let isDecoder = ["ForCausalLM", "LMHeadModel", "ForConditionalGeneration"].contains { architecture.hasSuffix($0) }
    guard contents.isWhole, isDecoder, let head = headWeights.first, headWeights.count == 1,
      !head.contains(UInt8(ascii: "*")),
      let shape = contents.parameters[head]?.shape, shape.count == 2
    else { return }
    let embedding = contents.parameters.first { path, parameter in
      path != head && parameter.shape == shape && parameter.presence == .required
    }?.key
    guard let index = present[head]?[[]] else {
      // Of models made of several, either may have been meant.
      let mayBeTied = mayTieHead(configuration) || configuration.textTiesWordEmbeddings == true
      if contents.alwaysTied.contains(head), configuration.tiesWordEmbeddings == false, !lacksPrefix {
        report.warnings.append(
          "'\(filled(head, []))' is not there, and tie_word_embeddings is false: transformers 5 ties it all the same, "
            + "older releases begin with random values for it")
      }
      if mayBeTied || lacksPrefix || embedding == nil { return }
      return add(filled(head, []), "is missing, and tie_word_embeddings is false: nothing else stands for it")
    }
    guard let embedding, let input = present[embedding]?[[]] else { return }
    let (rows, wanted) = (tensors[index].shape.first, tensors[input].shape.first)
    if rows != wanted, !report.faults.contains(where: { $0.tensor == tensors[index].name.string }) {
      add(
        tensors[index].name.string,
        "has shape \(tensors[index].shape), but '\(tensors[input].name)' has shape \(tensors[input].shape): one row for each token in both"
      )
    }
  }

  /// The pattern with numbers for its stars, spelled as the checkpoint spells its names.
  func filled(_ pattern: [UInt8], _ numbers: [Int]) -> String {
    var left = numbers[...]
    let parts = pattern.components.map { part -> String in
      let text = String(decoding: part, as: UTF8.self)
      guard part.last == UInt8(ascii: "*"), let number = left.popFirst() else { return text }
      return text.dropLast() + String(number)
    }
    let name = parts.joined(separator: ".")
    let prefix = String(decoding: rule.prefix, as: UTF8.self) + "."
    return lacksPrefix && name.hasPrefix(prefix) ? String(name.dropFirst(prefix.count)) : name
  }
}

/// The numbered parts of a class, and which of them a checkpoint has something of.
struct Stacks {
  /// Patterns by the path up to their last number; empty for those without one.
  private(set) var containers: [[UInt8]: [[UInt8]]] = [:]
  /// Paths in front of the first number.
  private(set) var present: [[UInt8]] = []
  private(set) var absent: [[UInt8]] = []

  init(_ contents: ClassContents, _ found: [[UInt8]: [[Int]: Int]]) {
    let dot = UInt8(ascii: ".")
    var stacks: [[UInt8]: Bool] = [:]
    for (pattern, parameter) in contents.parameters {
      let parts = pattern.components
      let last = parts.dropLast().lastIndex { $0.last == UInt8(ascii: "*") }
      let container = last.map { Array(parts[...$0].joined(separator: [dot])) } ?? []
      containers[container, default: []].append(pattern)
      guard let first = parts.firstIndex(where: { $0.last == UInt8(ascii: "*") }) else { continue }
      let stack = Array(parts[..<first].joined(separator: [dot]))
      let isThere = found[pattern] != nil
      // What all of a stack may lack says nothing.
      if isThere || parameter.presence != .optional { stacks[stack] = stacks[stack] == true || isThere }
    }
    present = stacks.filter(\.value).keys.sorted { $0.lexicographicallyPrecedes($1) }
    absent = stacks.filter { !$0.value }.keys.sorted { $0.lexicographicallyPrecedes($1) }
  }
}

extension [UInt8] {
  fileprivate var isBias: Bool { suffix(5).elementsEqual(".bias".utf8) }
}
