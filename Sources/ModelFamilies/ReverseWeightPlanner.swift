import Bytes
import GGUF
import Tensors

/// Finds for every tensor of a GGUF model what it becomes in a Hugging Face checkpoint.
struct ReverseWeightPlanner {
  private let family: Family
  private let sizes: ModelSizes
  private let rules: [TensorName: TensorRule]

  /// Read for the configuration, or left out because it can be computed from it.
  private static let computed: Set<TensorName> = [
    "rope_freqs.weight", TensorName(RopeParameters.longFactors), TensorName(RopeParameters.shortFactors),
  ]

  init(family: Family, sizes: ModelSizes) {
    self.family = family
    self.sizes = sizes
    let written = family.tensors.filter { $0.presence != .alternative }
    rules = Dictionary(written.map { (TensorName($0.gguf), $0) }) { first, _ in first }
  }

  func plan(_ tensors: [GGUFTensor]) throws(Failure) -> [PlannedWeight] {
    var weights: [PlannedWeight] = []
    var found: [TensorName: Int] = [:]
    for (position, tensor) in tensors.enumerated() {
      guard found.updateValue(position, forKey: tensor.name) == nil else {
        throw Failure(.malformed, "occurs twice", tensor: tensor.name.string)
      }
      if Self.computed.contains(tensor.name), family.rope.hasFactors { continue }
      guard let numbered = NumberedName(tensor.name.string), let rule = rules[TensorName(numbered.pattern)] else {
        throw Failure(
          .unsupported, "is not a weight that \(family.name) models have in Hugging Face's form",
          tensor: tensor.name.string)
      }
      let layer = numbered.numbers.first ?? 0
      guard layer < sizes.layers else {
        throw Failure(.malformed, "is of layer \(layer), the model has \(sizes.layers)", tensor: tensor.name.string)
      }
      weights += try self.weights(of: tensor, position, rule, layer: layer)
    }
    if let (rule, layer) = family.firstMissing(in: found, layers: sizes.layers, needsHead: false) {
      throw Failure(.malformed, "is missing", tensor: NumberedName.fill(rule.gguf, layer: layer))
    }
    return weights
  }

  private func weights(
    of tensor: GGUFTensor, _ position: Int, _ rule: TensorRule, layer: Int
  ) throws(Failure) -> [PlannedWeight] {
    let shape = try sizes.shape(rule.shape)
    var stored = shape
    if case .transpose = rule.transform { stored.reverse() }
    let count = rule.isPerExpert ? sizes.experts ?? 0 : 1
    if rule.isPerExpert { stored.insert(count, at: 0) }
    // Some writers drop a dimension of one.
    guard tensor.shape == stored || stored.first == 1 && tensor.shape == Array(stored.dropFirst()) else {
      throw Failure(
        .malformed, "has shape \(tensor.shape), the metadata makes it \(stored)", tensor: tensor.name.string)
    }
    guard rule.isPerExpert else {
      let name = TensorName(NumberedName.fill(rule.huggingFace, layer: layer))
      return [
        PlannedWeight(name: name, shape: shape, source: .stored(position), transform: try inverse(rule, tensor))
      ]
    }
    return (0..<count).map { expert in
      let name = TensorName(NumberedName.fill(rule.huggingFace, layer: layer, expert: expert))
      return PlannedWeight(name: name, shape: shape, source: .part(of: position, index: expert))
    }
  }

  private func inverse(_ rule: TensorRule, _ tensor: GGUFTensor) throws(Failure) -> WeightTransform {
    switch rule.transform {
    case .none, .half: return .none
    case .transpose: return .transpose
    case .addOne: return .addScalar(-1)
    case .permuteQueries, .permuteKeys:
      guard sizes.headLength % 2 == 0 else {
        throw Failure(
          .malformed, "cannot be in ggml's order: the head length \(sizes.headLength) is odd",
          tensor: tensor.name.string)
      }
      if case .permuteQueries = rule.transform { return .unpermuteHeads(sizes.heads) }
      return .unpermuteHeads(sizes.keyValueHeads)
    }
  }
}
