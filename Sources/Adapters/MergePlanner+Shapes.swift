import Bytes
import Tensors

/// Whether factors fit the weights that they adapt, and how.
extension MergePlanner {
  /// The factors' shape and where the product goes.
  func geometry(
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
    try checkSize(a[0], inputs, outputs, target)
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
    try checkSize(a[0], a[1], b[0], target)
    return LowRankFactors.Shape(experts: experts, rank: a[0] / experts, inputs: a[1], outputs: b[0])
  }

  private func misfit(
    _ target: Target, _ shape: LowRankFactors.Shape, _ name: TensorName, _ weight: [Int]
  ) -> Failure {
    adapters[target.adapter].failure(
      "makes deltas of [\(shape.outputs), \(shape.inputs)] for \(shape.experts) experts, but the base's '\(name.string)' "
        + "is \(weight)", tensor: target.module.a ?? 0)
  }

  /// The library counts in 32 bits, and both factors are held in memory: blocks and groups written out, so that a
  /// small file must not ask for much, nor one with holes.
  private func checkSize(_ rank: Int, _ inputs: Int, _ outputs: Int, _ target: Target) throws(Failure) {
    guard inputs <= Int(Int32.max), outputs <= Int(Int32.max) else {
      throw Failure(.unsupported, "has more than 2^31 rows or columns", tensor: target.module.path)
    }
    let (elements, overflow) = rank.multipliedReportingOverflow(by: inputs + outputs)
    guard !overflow, elements <= Self.factorLimit else {
      throw adapters[target.adapter].failure(
        "has rank \(rank) for \(inputs) inputs and \(outputs) outputs: more than the \(Self.factorLimit) values that A "
          + "and B may have together", tensor: target.module.a ?? 0)
    }
  }

  /// 4 GiB in 32 bits; stacks of hundreds of experts have a tenth.
  private static let factorLimit = 1 << 30
}
