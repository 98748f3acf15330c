import Adapters
import Bytes
import ModelFamilies

extension DecoderBuilder {
  /// gate, act(gate), up.
  ///
  /// - Parameter input: the name of what it is computed from.
  mutating func gatedMLP(_ path: String = "mlp", width: Int, bias: Bool = false, input: String = "mlp") {
    linear(path + ".gate_proj", width, hidden, bias: bias, input: input)
    linear(path + ".up_proj", width, hidden, bias: bias, input: input)
    linear(path + ".down_proj", hidden, width, bias: bias, input: path + ".product")
    save(SavedTensor(.model, .tokens, 3, width))
  }

  /// gate and up in one projection, kept whole, and act(gate).
  mutating func joinedMLP(_ width: Int) throws(Failure) {
    let joined = try product(2, width, what: "intermediate_size")
    linear("mlp.gate_up_proj", joined, hidden, input: "mlp")
    linear("mlp.down_proj", hidden, width, input: "product")
    save(SavedTensor(.model, .tokens, 3, width))
  }

  /// Two projections with an activation in between, for which `saved` tensors of its width are kept.
  mutating func plainMLP(
    _ first: String, _ second: String, width: Int, saved: Int = 1, bias: Bool, input: String = "mlp",
    isTransposed: Bool = false
  ) {
    linear(first, width, hidden, bias: bias, input: input, isTransposed: isTransposed)
    linear(second, hidden, width, bias: bias, input: "activation", isTransposed: isTransposed)
    save(SavedTensor(.model, .tokens, saved, width))
  }

  // MARK: - Experts

  /// The stacked experts of a layer.
  struct Experts {
    var path = "mlp"
    var count: Int
    var width: Int
    /// The number of experts that each token uses.
    var used: Int
    /// The weights of the chosen ones are in float32.
    var hasFloatWeights = false
  }

  func experts(
    width key: String = "moe_intermediate_size", hasFloatWeights: Bool = false
  ) throws(Failure) -> Experts {
    guard let count = sizes.experts else { throw config.failure("num_local_experts", "is missing") }
    let used = try config.size("num_experts_per_tok")
    guard used <= count else {
      throw config.failure("num_experts_per_tok", "found \(used), there are \(count) experts")
    }
    return Experts(count: count, width: try config.size(key), used: used, hasFloatWeights: hasFloatWeights)
  }

  /// Scores of all experts in float32, and the numbers of the chosen ones.
  mutating func router(_ experts: Experts, normalized: Bool) {
    routerWeight(experts, .shared("mlp", SavedTensor(.model, .tokens, hidden)), savesSum: true)
    save(.float32, .tokens, experts.count)
    save(.int64, .tokens, experts.used)
    if normalized { save(.float32, .tokens, 1 + experts.used) }
  }

  mutating func routerWeight(_ experts: Experts, _ input: TrainedParameter.Input, savesSum: Bool) {
    let adapter = family.experts.map {
      TrainedParameter.Adapter(
        form: .matrix(savesSum: savesSum), names: $0.router, inputs: hidden, outputs: experts.count)
    }
    parameter(experts.path + ".gate.weight", [experts.count, hidden], input, adapter)
  }

  /// Every token is copied for each expert that it was given, sorted by expert, and multiplied with that expert's
  /// matrices in one kernel (`grouped_mm`), so the sizes do not depend on who was chosen.
  mutating func groupedExperts(_ experts: Experts) throws(Failure) {
    let used = experts.used
    let both = try product(2, experts.width, what: "moe_intermediate_size")
    try stack(experts, "gate_up_proj", [both, hidden], ranks: 2, input: hidden, family.experts?.gateAndUp)
    try stack(experts, "down_proj", [hidden, experts.width], ranks: 1, input: experts.width, family.experts?.down)
    // Their order, its inverse, whose row it is; where each expert's rows end.
    save(.int64, .tokens, 3 * used)
    save(.int32, .once, experts.count)
    save(SavedTensor(.model, .tokens, used, 3, experts.width))
    save(experts.hasFloatWeights ? .float32 : .model, .tokens, used)
    save(SavedTensor(.model, .tokens, used, hidden))
  }

  /// - Parameter shape: of one matrix, outputs × inputs.
  private mutating func stack(
    _ experts: Experts, _ name: String, _ shape: [Int], ranks: Int, input: Int, _ names: [String]?
  ) throws(Failure) {
    let adapter = try names.map { names throws(Failure) in
      TrainedParameter.Adapter(
        form: .stack, names: names,
        inputs: try product(ranks, experts.count, shape[1], what: "num_local_experts"),
        outputs: try product(ranks, experts.count, shape[0], what: "num_local_experts"))
    }
    parameter(
      experts.path + ".experts." + name, [experts.count] + shape,
      .shared(name, SavedTensor(.model, .tokens, experts.used, input)), adapter)
  }
}
