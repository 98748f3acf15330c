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

    /// What the patterns of ranks and alphas are compared with.
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
        throw error.located(file: "\(adapter.path)/\(Adapter.weightsName)")
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
        // An expert stored by itself is part of a stacked parameter for PEFT, whatever the keys say.
        if target.module.isEmbedding || target.isParameter || slots[slot].part != nil || isRounded {
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

  // MARK: - Shapes

  /// The factors' shape and where the product goes.
  private func geometry(
    _ target: Target
  ) throws(Failure) -> (shape: LowRankFactors.Shape, places: [(slot: Int, place: LowRankDelta.Place)]) {
    switch target.home {
    case .whole(let slot):
      let shape = slots[slot].shape
      if shape.count == 3, target.isParameter { return try stackGeometry(target, slot) }
      return try layerGeometry(target, slot)
    case .parts(let grid): return try partsGeometry(target, grid)
    }
  }

  /// A and B as matrices: `[rows, columns]` of each; a convolution's kernel counts as inputs.
  private func matrices(_ target: Target) throws(Failure) -> (a: [Int], b: [Int]) {
    let adapter = adapters[target.adapter]
    func matrix(_ index: Int?) throws(Failure) -> [Int] {
      let index = index ?? 0
      let shape = adapter.tensors[index].shape
      guard shape.count >= 2 else {
        throw adapter.failure("has shape \(shape), expected at least two dimensions", tensor: index)
      }
      return [shape[0], shape.dropFirst().reduce(1, *)]
    }
    return (try matrix(target.module.a), try matrix(target.module.b))
  }

  private func layerGeometry(
    _ target: Target, _ slot: Int
  ) throws(Failure) -> (shape: LowRankFactors.Shape, places: [(slot: Int, place: LowRankDelta.Place)]) {
    let adapter = adapters[target.adapter]
    let configuration = adapter.configuration
    let weight = slots[slot].shape
    var (a, b) = try matrices(target)
    if let blocks = configuration.blocks { try spread(&a, &b, over: blocks, target) }
    // PEFT groups inputs only where the base is quantized by GPTQ; elsewhere A has all columns.
    if let group = configuration.groupSize, a[1] != weight.dropFirst().reduce(1, *) { a[1] = product(a[1], group) }
    guard a[0] == b[1] else {
      throw adapter.failure(
        "has rank \(a[0]), '\(adapter.tensors[target.module.b ?? 0].name.string)' rank \(b[1])",
        tensor: target.module.a ?? 0)
    }
    let (inputs, outputs) = (a[1], b[0])
    // Blocks and groups are written out: a small file must not ask for much memory.
    let (written, overflow) = a[0].multipliedReportingOverflow(by: inputs + outputs)
    guard !overflow, written <= adapter.tensors.reduce(1 << 24, { $0 + $1.elementCount }) * 64 else {
      throw adapter.failure(
        "has rank \(a[0]) for \(inputs) inputs and \(outputs) outputs", tensor: target.module.a ?? 0)
    }
    let isNormal = weight.count >= 2 && weight[0] == outputs && weight.dropFirst().reduce(1, *) == inputs
    let isTurned = weight == [inputs, outputs]
    let prefersTurned =
      target.module.isEmbedding || (slots[slot].isTransposed ?? configuration.isTransposed)
    guard isNormal || isTurned, !target.module.isEmbedding || isTurned else {
      throw adapter.failure(
        "with \(adapter.tensors[target.module.a ?? 0].shape) and \(adapter.tensors[target.module.b ?? 0].shape) makes a "
          + "delta of [\(outputs), \(inputs)], but the base's '\(slots[slot].name.string)' is \(weight)",
        tensor: target.module.a ?? 0)
    }
    let isTransposed = isNormal && isTurned ? prefersTurned : isTurned
    try checkCounts([inputs, outputs], target)
    return (
      LowRankFactors.Shape(rank: a[0], inputs: inputs, outputs: outputs),
      [(slot, LowRankDelta.Place(isTransposed: isTransposed, rowsPerExpert: weight[0]))]
    )
  }

  /// Experts in one stacked tensor, `[experts, outputs, inputs]` or `[experts, inputs, outputs]`.
  private func stackGeometry(
    _ target: Target, _ slot: Int
  ) throws(Failure) -> (shape: LowRankFactors.Shape, places: [(slot: Int, place: LowRankDelta.Place)]) {
    let weight = slots[slot].shape
    let (a, b) = try matrices(target)
    let shape = try expertShape(target, a, b, experts: weight[0])
    let isNormal = weight[1] == shape.outputs && weight[2] == shape.inputs
    let isTurned = weight[1] == shape.inputs && weight[2] == shape.outputs
    guard isNormal || isTurned else { throw misfit(target, shape, slots[slot].name, weight) }
    let isTransposed = isNormal && isTurned ? slots[slot].isTransposed ?? false : isTurned
    return (shape, [(slot, LowRankDelta.Place(isTransposed: isTransposed, rowsPerExpert: weight[1]))])
  }

  private func partsGeometry(
    _ target: Target, _ grid: [[Int]]
  ) throws(Failure) -> (shape: LowRankFactors.Shape, places: [(slot: Int, place: LowRankDelta.Place)]) {
    let (a, b) = try matrices(target)
    let shape = try expertShape(target, a, b, experts: grid.count)
    var places: [(slot: Int, place: LowRankDelta.Place)] = []
    for (expert, parts) in grid.enumerated() {
      var offset = 0
      for slot in parts {
        let weight = slots[slot].shape
        guard weight.count == 2, weight[1] == shape.inputs, weight[0] <= shape.outputs - offset else {
          throw misfit(target, shape, slots[slot].name, weight)
        }
        places.append((slot, .init(firstExpert: expert, rowsPerExpert: weight[0], rowOffset: offset)))
        offset += weight[0]
      }
      guard offset == shape.outputs else { throw misfit(target, shape, slots[parts[0]].name, slots[parts[0]].shape) }
    }
    return (shape, places)
  }

  private func expertShape(
    _ target: Target, _ a: [Int], _ b: [Int], experts: Int
  ) throws(Failure) -> LowRankFactors.Shape {
    let adapter = adapters[target.adapter]
    if adapter.configuration.blocks?.side(of: target.path) != nil {
      throw Failure(
        .unsupported, "adapts stacked experts in blocks (use_bdlora), which are for linear layers",
        tensor: adapter.tensors[target.module.a ?? 0].name.string)
    }
    guard experts > 0, a[0] == b[1], a[0] % experts == 0 else {
      throw adapter.failure(
        "has \(a[0]) rows, '\(adapter.tensors[target.module.b ?? 0].name.string)' \(b[1]) columns; expected the same "
          + "multiple of \(experts) experts", tensor: target.module.a ?? 0)
    }
    try checkCounts([a[1], b[0]], target)
    return LowRankFactors.Shape(experts: experts, rank: a[0] / experts, inputs: a[1], outputs: b[0])
  }

  private func misfit(
    _ target: Target, _ shape: LowRankFactors.Shape, _ name: TensorName, _ weight: [Int]
  ) -> Failure {
    adapters[target.adapter].failure(
      "makes deltas of [\(shape.outputs), \(shape.inputs)] for \(shape.experts) experts, but the base's '\(name.string)' "
        + "is \(weight)", tensor: target.module.a ?? 0)
  }

  /// The library counts in 32 bits.
  private func checkCounts(_ counts: [Int], _ target: Target) throws(Failure) {
    guard counts.allSatisfy({ $0 <= Int(Int32.max) }) else {
      throw Failure(.unsupported, "has more than 2^31 rows or columns", tensor: target.module.path)
    }
  }
}
