import Bytes
import Tensors

extension MergePlanner {
  /// A module of an adapter with the parameter that it adapts.
  struct Target {
    var adapter: Int
    var module: Adapter.Module
    var parameter: String
    /// Named by `target_parameters`: PEFT rounds such deltas to the parameter's dtype.
    var isParameter: Bool
    var home: Home

    /// The path that the patterns of ranks and alphas are compared with.
    var path: String { isParameter ? "\(module.path).\(parameter)" : module.path }
  }

  /// Low-rank updates of all adapters, those of one parameter together.
  mutating func placeDeltas() throws(Failure) {
    var order: [String] = []
    var groups: [String: [Target]] = [:]
    for number in adapters.indices {
      let targets = try targets(of: number)
      try checkPatterns(targets, adapters[number])
      for target in targets {
        let key = groupKey(target.home)
        if groups[key] == nil { order.append(key) }
        groups[key, default: []].append(target)
      }
    }
    for key in order {
      do throws(Failure) { try place(groups[key] ?? []) } catch {
        let adapter = adapters[groups[key]?.first?.adapter ?? 0]
        throw error.located(file: adapter.weightsPath)
      }
    }
  }

  private func groupKey(_ home: Home) -> String {
    switch home {
    case .whole(let slot): "\(slot)"
    case .parts(let grid): "\(grid[0][0]) parts"
    }
  }

  // MARK: - Which parameter a module adapts

  private mutating func targets(of number: Int) throws(Failure) -> [Target] {
    let adapter = adapters[number]
    var result: [Target] = []
    var paths: [String] = []
    var byPath: [String: [Adapter.Module]] = [:]
    for module in adapter.modules {
      if byPath[module.path] == nil { paths.append(module.path) }
      byPath[module.path, default: []].append(module)
    }
    for path in paths {
      // The innermost wrapper, the one with the most words in front of it, was put on first.
      let modules = (byPath[path] ?? []).sorted { $0.depth > $1.depth }
      let targeted = targetedParameters(path, adapter.configuration)
      // Each of several parameters has a wrapper of its own, the first one innermost.
      let isParameter = targeted.count == modules.count
      for (position, module) in modules.enumerated() {
        let name = isParameter ? targeted[position] : "weight"
        if let home = home(path, name) ?? newHead(path, name) {
          result.append(
            Target(adapter: number, module: module, parameter: name, isParameter: isParameter, home: home))
        } else {
          unmatched += [module.a, module.b, module.bias, module.magnitude].compactMap(\.self).map { (number, $0) }
        }
      }
    }
    return result
  }

  private func targetedParameters(_ path: String, _ configuration: AdapterConfiguration) -> [String] {
    if configuration.targetParameters.isEmpty { return [] }
    return parameters(of: path).filter { name in
      configuration.targetParameters.contains { "\(path).\(name)" == $0 || "\(path).\(name)".hasSuffix("." + $0) }
    }
  }

  // MARK: - Placing

  private mutating func place(_ targets: [Target]) throws(Failure) {
    guard let first = targets.first else { return }
    var terms: [FactorTerm] = []
    var places: [[(slot: Int, place: LowRankDelta.Place)]] = []
    for target in targets {
      let (shape, place) = try geometry(target)
      let adapter = adapters[target.adapter]
      let (rank, scale) = adapter.configuration.scale(of: target.path)
      guard rank == shape.rank else {
        throw adapter.failure(
          "has rank \(shape.rank), adapter_config.json says \(rank) for '\(target.path)'",
          tensor: target.module.a ?? 0)
      }
      let weighted = scale * settings.weight(target.adapter)
      terms.append(
        FactorTerm(
          adapter: adapter, module: target.module, scale: weighted, shape: shape, layout: settings.expertLayout))
      places.append(place)
      for (slot, _) in place {
        if slots[slot].changes.contains(where: { $0.adapter == target.adapter && $0.scale != nil }) {
          throw adapter.failure(
            "adapts '\(slots[slot].name.string)', which another tensor of the adapter adapts already",
            tensor: target.module.a ?? 0)
        }
        record(slot, target.adapter, scale: weighted)
        let configuration = adapter.configuration
        let isRounded = configuration.roundsDelta || configuration.blocks != nil
        // An expert stored by itself is part of a stacked parameter for PEFT, whatever the keys say, and a router's
        // weight is a parameter.
        let isParameter = target.isParameter || slots[slot].part != nil || base.entries[slots[slot].base].isRouter
        if target.module.isEmbedding || isParameter || isRounded {
          slots[slot].isRoundedFirst = true
        }
        if case .whole = target.home, target.isParameter, slots[slot].shape.count == 3 { slots[slot].isStack = true }
      }
      try placeBias(target, weighted)
    }
    if settings.combination != .sum, adapters.count > 1 {
      try combine(targets, terms, places[0], first)
    } else {
      for (position, target) in targets.enumerated() {
        try add(terms[position], target, places[position])
      }
    }
  }

  private mutating func add(
    _ term: FactorTerm, _ target: Target, _ places: [(slot: Int, place: LowRankDelta.Place)]
  ) throws(Failure) {
    let magnitude = try magnitude(of: target, term)
    let weight = settings.weight(target.adapter)
    // DoRA's weight is a matter of how much of its change is applied, not of the delta inside it.
    let scale =
      magnitude == nil ? term.scale : adapters[target.adapter].configuration.scale(of: target.path).scale
    let source = FactorSource(id: nextFactorID, terms: [term], combination: nil)
    nextFactorID += 1
    for (slot, place) in places {
      slots[slot].deltas.append(
        LowRankDelta(
          factors: source, scale: Float(scale), place: place,
          magnitude: magnitude.map {
            LowRankDelta.Magnitude(adapter: adapters[target.adapter], tensor: $0, weight: Float(weight))
          }))
    }
  }

  private mutating func combine(
    _ targets: [Target], _ terms: [FactorTerm], _ places: [(slot: Int, place: LowRankDelta.Place)], _ first: Target
  ) throws(Failure) {
    for (target, term) in zip(targets, terms) {
      guard term.shape == terms[0].shape else {
        throw adapters[target.adapter].failure(
          "has rank \(term.shape.rank), that of '\(adapters[first.adapter].name)' \(terms[0].shape.rank): "
            + "--combine \(settings.combination.rawValue) needs equal ranks", tensor: target.module.a ?? 0)
      }
      guard target.module.magnitude == nil else {
        throw Failure(
          .unsupported, "is a DoRA adapter, which only --combine sum can put together with others",
          file: adapters[target.adapter].path)
      }
    }
    let combination = FactorCombination(
      kind: settings.combination, density: settings.density, seed: UInt64(bitPattern: Int64(settings.seed)))
    let source = FactorSource(id: nextFactorID, terms: terms, combination: combination)
    nextFactorID += 1
    for (slot, place) in places {
      slots[slot].deltas.append(LowRankDelta(factors: source, scale: 1, place: place, magnitude: nil))
    }
  }

  private func magnitude(of target: Target, _ term: FactorTerm) throws(Failure) -> Int? {
    let adapter = adapters[target.adapter]
    guard let tensor = target.module.magnitude else {
      if adapter.configuration.usesDoRA {
        throw adapter.failure(
          "has no lora_magnitude_vector beside it, which use_dora needs", tensor: target.module.a ?? 0)
      }
      return nil
    }
    guard adapter.configuration.usesDoRA else {
      throw adapter.failure("stands in an adapter whose use_dora is false", tensor: tensor)
    }
    let info = adapter.tensors[tensor]
    guard term.shape.experts == 1, info.elementCount == term.shape.outputs else {
      throw adapter.failure("has shape \(info.shape), expected [\(term.shape.outputs)]", tensor: tensor)
    }
    return tensor
  }

  private mutating func placeBias(_ target: Target, _ scale: Double) throws(Failure) {
    guard let tensor = target.module.bias else { return }
    let adapter = adapters[target.adapter]
    guard case .whole(let slot)? = home(target.module.path, "bias") else {
      throw adapter.failure(
        "is a bias (lora_bias), but module '\(target.module.path)' of the base has none to add it to", tensor: tensor)
    }
    guard slots[slot].shape == adapter.tensors[tensor].shape else {
      throw adapter.failure(
        "has shape \(adapter.tensors[tensor].shape), the base's bias \(slots[slot].shape)", tensor: tensor)
    }
    slots[slot].vectors.append((adapter, tensor, Float(scale)))
    record(slot, target.adapter, scale: scale)
  }
}
