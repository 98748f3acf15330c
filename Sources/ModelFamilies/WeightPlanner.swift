import Bytes
import Tensors

/// Finds for every tensor of a Hugging Face checkpoint what it becomes in GGUF.
struct WeightPlanner {
  private let family: Family
  private let parameters: ModelParameters
  private let sizes: ModelSizes
  private let isMultimodal: Bool
  private let tiesEmbeddings: Bool
  private let hasHead: Bool
  private let rules: [TensorName: [TensorRule]]
  private let expertRules: [TensorRule]

  init(
    family: Family, className: String?, isMultimodal: Bool, parameters: ModelParameters, sizes: ModelSizes
  ) throws(Failure) {
    self.family = family
    self.parameters = parameters
    self.sizes = sizes
    self.isMultimodal = isMultimodal
    hasHead = !(className.map(family.headlessClasses.contains) ?? false)
    tiesEmbeddings = try parameters.bool("tie_word_embeddings") ?? true
    rules = Dictionary(grouping: family.tensors) { TensorName($0.huggingFace) }
    expertRules = family.tensors.filter(\.isPerExpert)
  }

  /// The experts found in one layer.
  private struct LayerExperts {
    /// For each of the rules, by number of the expert.
    var positions: [[Int: Int]]
    var count = 0
  }

  func plan(_ tensors: [TensorInfo], warnings: inout [Warning]) throws(Failure) -> [PlannedWeight] {
    var weights: [PlannedWeight] = []
    var found: [TensorName: TensorName] = [:]
    var experts: [Int: LayerExperts] = [:]
    var left: [String] = []
    for (position, tensor) in tensors.enumerated() {
      if isIgnored(tensor.name) { continue }
      guard let (match, layer, expert) = try match(tensor) else {
        guard isMultimodal, TowerNames.contains(tensor.name.string) else { throw unmatched(tensor) }
        left.append(tensor.name.string)
        continue
      }
      try checkType(tensor)
      for rule in match {
        try checkShape(tensor, rule)
        let name = TensorName(NumberedName.fill(rule.gguf, layer: layer ?? 0))
        if let expert, let layer {
          let done = try collect(position, tensor, expert, of: rule, layer, in: &experts)
          if done { weights += try stack(layer, &experts, &found) }
          continue
        }
        try claim(name, for: tensor.name, in: &found)
        weights.append(try weight(name, position, tensor, rule))
      }
    }
    try checkComplete(found, experts)
    try checkFlags(found)
    if !left.isEmpty {
      warnings.append(
        "\(left.count == 1 ? "1 tensor of another part of the model is" : "\(left.count) tensors of other parts of the model are") left out: \(names: left); GGUF keeps those in a file of "
          + "their own (mmproj), which is not written")
    }
    if tiesEmbeddings, found["output.weight"] != nil {
      warnings.append("lm_head.weight is stored although the configuration ties it; it is written as it is stored")
    }
    return weights
  }

  // MARK: - Names

  private func isIgnored(_ name: TensorName) -> Bool {
    family.ignoredSuffixes.contains { name.hasSuffix($0) }
  }

  /// The rules that read a tensor, with its layer and expert.
  private func match(_ tensor: TensorInfo) throws(Failure) -> (rules: [TensorRule], layer: Int?, expert: Int?)? {
    var name = tensor.name.string
    if isMultimodal { name = name.removing("language_model.") }
    guard let numbered = NumberedName(name) else { return nil }
    var match = rules[TensorName(numbered.pattern)]
    if match == nil, let prefix = family.tensors.first?.huggingFace.split(separator: ".").first {
      match = rules[TensorName(prefix + "." + numbered.pattern)]
    }
    guard let match else { return nil }
    let layer = numbered.numbers.first
    let expert = numbered.numbers.count > 1 ? numbered.numbers[1] : nil
    if let layer, layer >= sizes.layers {
      throw Failure(
        .malformed, "is of layer \(layer), num_hidden_layers is \(sizes.layers)", tensor: tensor.name.string)
    }
    if let expert, expert >= sizes.experts ?? 0 {
      throw Failure(
        .malformed, "is of expert \(expert), the configuration has \(sizes.experts ?? 0) experts",
        tensor: tensor.name.string)
    }
    return (match, layer, expert)
  }

  private func unmatched(_ tensor: TensorInfo) -> Failure {
    if TowerNames.contains(tensor.name.string) {
      return Failure(
        .unsupported, "belongs to a vision, audio or projection part, which has no place in this GGUF model",
        tensor: tensor.name.string)
    }
    return Failure(
      .unsupported, "is not a weight that \(family.name) models have in GGUF", tensor: tensor.name.string)
  }

  private func claim(
    _ name: TensorName, for source: TensorName, in found: inout [TensorName: TensorName]
  ) throws(Failure) {
    if let other = found.updateValue(source, forKey: name) {
      throw Failure(
        .malformed, "and '\(other.string.printable(limit: 256))' are both \(name)", tensor: source.string)
    }
  }

  // MARK: - Checks

  private func checkType(_ tensor: TensorInfo) throws(Failure) {
    guard tensor.type.isFloat else {
      throw Failure(
        .unsupported, "is \(tensor.type.name), only F16, BF16, F32 and F64 become GGUF weights",
        tensor: tensor.name.string)
    }
  }

  private func checkShape(_ tensor: TensorInfo, _ rule: TensorRule) throws(Failure) {
    let expected = try sizes.shape(rule.shape)
    guard tensor.shape == expected else {
      throw Failure(
        .malformed, "has shape \(tensor.shape), the configuration makes it \(expected)", tensor: tensor.name.string)
    }
  }

  private func checkComplete(_ found: [TensorName: TensorName], _ experts: [Int: LayerExperts]) throws(Failure) {
    let needsHead = hasHead && !tiesEmbeddings
    guard let (rule, layer) = family.firstMissing(in: found, layers: sizes.layers, needsHead: needsHead) else { return }
    var expert: Int?
    if let number = expertRules.firstIndex(where: { $0.huggingFace == rule.huggingFace }) {
      let positions = experts[layer]?.positions[number] ?? [:]
      expert = (0..<(sizes.experts ?? 1)).first { positions[$0] == nil }
    }
    throw Failure(
      .malformed, "is missing", tensor: NumberedName.fill(rule.huggingFace, layer: layer, expert: expert))
  }

  /// A bias that the configuration switches on must be there: transformers would make one up.
  private func checkFlags(_ found: [TensorName: TensorName]) throws(Failure) {
    for (flag, patterns) in family.biasFlags where try parameters.bool(flag) == true {
      for pattern in patterns where found[TensorName(NumberedName.fill(pattern, layer: 0))] == nil {
        let rule = family.tensors.first { $0.gguf == pattern }
        throw Failure(
          .malformed, "is missing, although \(flag) is true",
          tensor: NumberedName.fill(rule?.huggingFace ?? pattern, layer: 0))
      }
    }
  }

  // MARK: - Weights

  private func weight(
    _ name: TensorName, _ position: Int, _ tensor: TensorInfo, _ rule: TensorRule
  ) throws(Failure) -> PlannedWeight {
    var shape = tensor.shape
    let transform = try transform(rule, tensor)
    switch transform {
    case .transpose: shape.reverse()
    case .rowsOfEach(let rows): shape[1] = rows.count
    default: break
    }
    return PlannedWeight(
      name: name, shape: shape, source: .stored(position), transform: transform,
      isAlwaysF32: rule.isAlwaysF32(rank: shape.count))
  }

  private func transform(_ rule: TensorRule, _ tensor: TensorInfo) throws(Failure) -> WeightTransform {
    switch rule.transform {
    case .none: return .none
    case .transpose: return .transpose
    case .addOne: return .addScalar(1)
    case .half(let number):
      let half = tensor.shape[1] / 2
      return .rowsOfEach(number * half..<(number + 1) * half)
    case .permuteQueries, .permuteKeys:
      guard sizes.headLength % 2 == 0 else {
        throw Failure(
          .malformed, "cannot be put into ggml's order: the head length \(sizes.headLength) is odd",
          tensor: tensor.name.string)
      }
      if case .permuteQueries = rule.transform { return .permuteHeads(sizes.heads) }
      return .permuteHeads(sizes.keyValueHeads)
    }
  }

  /// - Returns: whether this was the last one of its layer.
  private func collect(
    _ position: Int, _ tensor: TensorInfo, _ expert: Int, of rule: TensorRule, _ layer: Int,
    in experts: inout [Int: LayerExperts]
  ) throws(Failure) -> Bool {
    guard let number = expertRules.firstIndex(where: { $0.huggingFace == rule.huggingFace }) else { return false }
    var all = experts[layer] ?? LayerExperts(positions: expertRules.map { _ in [:] })
    guard all.positions[number].updateValue(position, forKey: expert) == nil else {
      throw Failure(.malformed, "is there under two names", tensor: tensor.name.string)
    }
    all.count += 1
    experts[layer] = all
    return all.count == (sizes.experts ?? 0) * expertRules.count
  }

  private func stack(
    _ layer: Int, _ experts: inout [Int: LayerExperts], _ found: inout [TensorName: TensorName]
  ) throws(Failure) -> [PlannedWeight] {
    guard let all = experts[layer], let count = sizes.experts else { return [] }
    var weights: [PlannedWeight] = []
    for (rule, positions) in zip(expertRules, all.positions) {
      let name = TensorName(NumberedName.fill(rule.gguf, layer: layer))
      try claim(name, for: TensorName(NumberedName.fill(rule.huggingFace, layer: layer)), in: &found)
      let shape = [count] + (try sizes.shape(rule.shape))
      let sources = (0..<count).compactMap { positions[$0] }
      weights.append(PlannedWeight(name: name, shape: shape, source: .stacked(sources)))
    }
    return weights
  }
}

extension TensorRule {
  /// Whether llama.cpp's converter always writes the weight in F32.
  func isAlwaysF32(rank: Int) -> Bool {
    let name = TensorName(gguf)
    return isAlwaysF32 || rank <= 1 || name.hasSuffix("_norm.weight") || !name.hasSuffix(".weight")
  }
}

extension String {
  /// Without every occurrence of `part`.
  fileprivate func removing(_ part: String) -> String {
    let bytes = Array(utf8)
    let wanted = Array(part.utf8)
    var kept: [UInt8] = []
    var index = 0
    while index < bytes.count {
      if bytes[index...].starts(with: wanted) {
        index += wanted.count
      } else {
        kept.append(bytes[index])
        index += 1
      }
    }
    return String(decoding: kept, as: UTF8.self)
  }
}
