package import Architectures
package import Bytes
import Checkpoints
package import JSON
package import ModelFamilies
package import Quantization
package import Tensors

/// A model's weights under the names and in the arrangement of mlx-lm, and how each is stored.
package struct MLXModel {
  package struct Weight {
    package var planned: PlannedWeight
    /// nil for one that stays as it is.
    package var format: GroupFormat?
  }

  let family: MLXFamily
  package private(set) var weights: [Weight] = []
  /// Whether config.json has to say that the embeddings are tied, or that they are not: nil where mlx-lm takes what
  /// transformers does.
  private(set) var statedTie: Bool?

  /// The format of the modules in `MLXFamily.eightBit`.
  package static let finer = GroupFormat(bits: 8, groupSize: 64)

  private static let head = "lm_head.weight"

  /// - Parameters:
  ///   - tensors: of the model, in the order of storage.
  ///   - unused: names of those that the class of transformers does not know; they are left out.
  ///   - isOriented: whether a tensor lies `[outputs, inputs]` though its class stores it the other way round.
  /// - Throws: `unsupported`, naming what mlx-lm would not load.
  package init(
    _ tensors: [TensorInfo], config: JSONValue, configuration: ModelConfiguration, format: GroupFormat,
    unused: Set<String>, isOriented: (Int) -> Bool
  ) throws(Failure) {
    family = try MLXFamily(of: configuration)
    let hasHead = try hasHead(tensors, configuration)
    var stacks: [String: [Int: Int]] = [:]
    var names: Set<String> = []
    for (index, info) in tensors.enumerated() {
      let stored = info.name.string
      if unused.contains(stored) || family.buffers.contains(where: stored.hasSuffix) { continue }
      let name = family.name(stored)
      if stored == Self.head, !hasHead { continue }
      guard names.insert(name).inserted else {
        throw Failure(.malformed, "and another tensor are both '\(name)' in mlx-lm", tensor: stored)
      }
      if let (stack, expert) = expert(name) {
        stacks[stack, default: [:]][expert] = index
        if expert == 0 { weights.append(Weight(planned: stacked(stack, info.shape, at: index))) }
        continue
      }
      try check(info, name)
      let isTurned = MLXFamily.isPath(name, family.transposed) && info.shape.count == 2 && !isOriented(index)
      let planned = PlannedWeight(
        name: TensorName(name), shape: isTurned ? info.shape.reversed() : info.shape, source: .stored(index),
        transform: isTurned ? .transpose : .none)
      weights.append(Weight(planned: planned))
    }
    try fill(stacks, tensors, config)
    for position in weights.indices { weights[position].format = try choose(format, weights[position].planned) }
    try checkBiases(names)
  }

  /// Modules in another format than the rest, which config.json has to name.
  var exceptions: [(path: String, format: GroupFormat)] {
    weights.compactMap { weight in
      guard let own = weight.format, MLXFamily.isPath(Self.module(weight), family.eightBit) else { return nil }
      return (Self.module(weight), own)
    }
  }

  private static func module(_ weight: Weight) -> String { module(weight.planned.name) }

  private static func module(_ name: TensorName) -> String {
    (name.dropping(suffix: GroupEncoder.suffix) ?? name).string
  }

  // MARK: - The head

  /// Whether the class has an output matrix of its own.
  private mutating func hasHead(_ tensors: [TensorInfo], _ configuration: ModelConfiguration) throws(Failure) -> Bool {
    let isStored = tensors.contains { $0.name.string == Self.head }
    switch family.head {
    case .ifStored: return isStored
    case .unlessTied(let byDefault):
      let isTied = configuration.tiesEmbeddings ?? !isStored
      if configuration.tiesWordEmbeddings == nil, byDefault != isTied { statedTie = isTied }
      return !isTied
    case .always:
      if isStored { return true }
      throw Failure(
        .unsupported, "is not there, and mlx-lm's \(family.modelType) takes no embeddings in its place",
        tensor: Self.head)
    case .never:
      if !isStored || configuration.tiesEmbeddings != false { return false }
      throw Failure(
        .unsupported, "is not tied to the embeddings, which mlx-lm's \(family.modelType) takes in its place",
        tensor: Self.head)
    }
  }

  // MARK: - Experts

  /// `model.layers.0.mlp.experts.7.up_proj.weight` is number 7 of `model.layers.0.mlp.switch_mlp.up_proj.weight`.
  private func expert(_ name: String) -> (stack: String, number: Int)? {
    guard let experts = family.experts else { return nil }
    let parts = name.split(separator: ".", omittingEmptySubsequences: false)
    guard parts.count > 4, parts[parts.count - 4] == "experts", parts[parts.count - 1] == "weight",
      let number = Int(parts[parts.count - 3]), let projection = experts.projections[String(parts[parts.count - 2])]
    else { return nil }
    return ((parts.dropLast(4).map(String.init) + ["switch_mlp", projection, "weight"]).joined(separator: "."), number)
  }

  private func stacked(_ name: String, _ shape: [Int], at index: Int) -> PlannedWeight {
    PlannedWeight(name: TensorName(name), shape: shape, source: .stacked([index]))
  }

  private mutating func fill(
    _ stacks: [String: [Int: Int]], _ tensors: [TensorInfo], _ config: JSONValue
  ) throws(Failure) {
    guard let experts = family.experts, !stacks.isEmpty else { return }
    guard let count = MLXFamily.member(experts.count, in: config)?.int, count > 0, count <= tensors.count else {
      throw Failure(.malformed, "has no '\(experts.count)' that its tensors agree with", file: StoredModel.configName)
    }
    for position in weights.indices {
      guard let members = stacks[weights[position].planned.name.string] else { continue }
      var indices: [Int] = []
      for number in 0..<count {
        guard let index = members[number], members.count == count,
          tensors[index].shape == weights[position].planned.shape
        else {
          throw Failure(
            .malformed, "is to be made of \(count) experts of one shape, and they are not there",
            tensor: weights[position].planned.name.string)
        }
        indices.append(index)
      }
      weights[position].planned.source = .stacked(indices)
      weights[position].planned.shape.insert(count, at: 0)
    }
  }

  // MARK: - What is quantized

  /// Every matrix whose rows are whole groups.
  private func choose(_ format: GroupFormat, _ weight: PlannedWeight) throws(Failure) -> GroupFormat? {
    guard weight.name.hasSuffix(GroupEncoder.suffix), weight.shape.count > 1, let columns = weight.shape.last,
      columns > 0, columns % format.groupSize == 0
    else { return nil }
    return MLXFamily.isPath(Self.module(weight.name), family.eightBit) ? Self.finer : format
  }

  private func check(_ info: TensorInfo, _ name: String) throws(Failure) {
    guard info.type.isFloat, info.shape.count < 3 else {
      throw Failure(
        .unsupported, "is \(info.type.name) of shape \(info.shape), no tensor that mlx-lm's \(family.modelType) has",
        tensor: info.name.string)
    }
    guard let module = info.name.dropping(suffix: ".bias") else { return }
    if !MLXFamily.isPath(module.string, family.biased + family.maybeBiased) {
      throw Failure(.unsupported, "is a bias that mlx-lm's \(family.modelType) does not have", tensor: info.name.string)
    }
  }

  private func checkBiases(_ names: Set<String>) throws(Failure) {
    for weight in weights where MLXFamily.isPath(Self.module(weight), family.biased) {
      let bias = Self.module(weight) + ".bias"
      if !names.contains(bias) {
        throw Failure(.unsupported, "is missing, which mlx-lm's \(family.modelType) always has", tensor: bias)
      }
    }
  }
}
