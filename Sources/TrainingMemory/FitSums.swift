import Bytes
import Tensors

/// The memory that one strategy takes for a model, before it is divided over cards.
struct FitSums: Sendable {
  /// Bytes of parameters, and of the statistics of 4-bit weights.
  let weights, statistics: Checked
  /// Elements of what is trained, and the bytes of each.
  let trained, trainedWidth: Checked
  /// Bytes of optimizer state, in the type of the trained parameters, and in float32.
  let state, floatState: (resident: Checked, pageable: Checked)
  /// Two of the largest layers, and all that stands outside of the layers.
  let gathered: Checked
  /// The largest 4-bit weight in 16 bits.
  let dequantized: Checked
  let activations: Activations

  /// - Throws: `malformed` when a size of the adapter overflows.
  init(_ model: FitModel, _ strategy: FitStrategy, _ options: Fit) throws(Failure) {
    func bytes(of parameter: FitParameter) -> Checked {
      if strategy.usesFourBits, parameter.fourBit != nil { return parameter.codeBytes }
      return model.width * Checked(parameter.info.elementCount)
    }
    var outside: Checked = 0
    var layers: [Checked] = Array(repeating: 0, count: model.decoder.layers.count)
    for parameter in model.parameters {
      if let layer = parameter.role.layer {
        layers[layer] += bytes(of: parameter)
      } else {
        outside += bytes(of: parameter)
      }
    }
    weights = layers.reduce(outside, +)
    gathered = outside + 2 * layers.reduce(0, Checked.max)
    statistics = strategy.usesFourBits ? model.parameters.sum(\.statisticsBytes) : 0
    let largest = model.parameters.filter { $0.fourBit != nil }.map(\.info.elementCount).max() ?? 0
    dequantized = strategy.usesFourBits ? model.width * Checked(largest) : 0

    let counts = try Self.trained(model, strategy, rank: options.rank)
    trained = counts.sum { Checked($0) }
    trainedWidth = strategy == .full || strategy == .qloraFSDP ? model.width : 4
    let optimizer = strategy == .qloraPaged ? .pagedAdamW : options.optimizer
    state = optimizer.state(of: counts, width: trainedWidth)
    floatState = optimizer.state(of: counts, width: 4)
    let width = try trainedWidth.number("bytes of an element")
    activations = Activations(model, strategy == .full ? .everything : .adapter(rank: options.rank, width: width))
  }

  /// Elements of each tensor that is trained.
  private static func trained(_ model: FitModel, _ strategy: FitStrategy, rank: Int) throws(Failure) -> [Int] {
    guard strategy != .full else { return model.parameters.map(\.info.elementCount) }
    var counts: [Int] = []
    for adapter in model.targets.compactMap(\.role.adapter) {
      for size in [adapter.inputs, adapter.outputs] {
        counts.append(try (Checked(size) * Checked(rank)).number("parameters of the adapter"))
      }
    }
    return counts
  }
}
