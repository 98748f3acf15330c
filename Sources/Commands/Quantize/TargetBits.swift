import Architectures
import Bytes
import Calibration
import Checkpoints
import Quantization
import Tensors
import Writing

/// Which modules stay in 16 bits where a number of bits for each weight is given: those whose quantization loses most
/// for each byte that it saves.
struct TargetBits {
  /// What was chosen.
  struct Choice {
    /// Modules that stay, by their paths in the model.
    var modules: [String]
    var summary: QuantizationSummary.Budget
  }

  /// Bits for each weight of the modules that are quantized without it.
  let bits: Double
  let scheme: FourBitScheme
  let search: ScaleSearch?
  /// The type that F32 becomes where it is not quantized; nil for itself.
  let copiedF32: FloatType?

  /// - Parameters:
  ///   - steps: of the weights that are quantized.
  ///   - modules: for each tensor of the model the path of its module.
  ///   - weigh: what each column of a weight counts.
  ///   - replan: the tensors that are still quantized when some modules stay.
  /// - Throws: `usage` for fewer bits than the scheme takes.
  func choose(
    _ steps: [Step], _ scan: LossScan, modules: [String?],
    weigh: (TensorInfo) throws(Failure) -> [Float]?, replan: ([String]) throws(Failure) -> Set<Int>
  ) throws(Failure) -> Choice {
    guard !steps.isEmpty else {
      throw Failure(.usage, "option '--target-bits' has no effect: no tensor is quantized here")
    }
    let weights = try steps.map { step throws(Failure) in try weight(step, scan.source.tensors[step.tensor]) }
    let count = weights.reduce(0.0) { $0 + Double($1.count) }
    let floor = weights.reduce(0) { $0.addingSaturated($1.quantized) }
    let allowed = Int(bits * count / 8)
    guard floor <= allowed else {
      throw Failure(
        .usage,
        "option '--target-bits': \(bits) is less than what the weights take already, "
          + "\(Self.rounded(8 * Double(floor) / max(1, count))) bits each")
    }
    var isWeighted = false
    for step in steps where try weigh(scan.source.tensors[step.tensor]) != nil { isWeighted = true }
    let losses = try measure(steps, scan, weigh)
    let things = zip(weights, losses).map { weight, loss in
      [BitBudget.Way(bytes: weight.quantized, loss: loss), BitBudget.Way(bytes: weight.kept, loss: 0)]
    }
    var budget = allowed - floor
    while true {
      let chosen = BitBudget.choose(things, budget: budget)
      let paths = zip(steps, chosen).compactMap { step, way in way == 1 ? modules[step.tensor] : nil }
      // A loader that compares the ends of names takes others for those that stay.
      let quantized = try replan(paths)
      let stays = steps.map { !quantized.contains($0.tensor) }
      let bytes = zip(weights, stays).reduce(0) { $0.addingSaturated($1.1 ? $1.0.kept : $1.0.quantized) }
      if bytes > allowed, budget > 0 {
        budget = max(0, budget - (bytes - allowed))
        continue
      }
      let all = losses.reduce(0, +)
      let saved = zip(losses, stays).reduce(0) { $0 + ($1.1 ? $1.0 : 0) }
      let order = stays.indices.filter { stays[$0] }.sorted { a, b in
        let (here, there) = (losses[a] / Double(weights[a].count), losses[b] / Double(weights[b].count))
        return here == there ? a < b : here > there
      }
      return Choice(
        modules: paths,
        summary: .init(
          target: bits, bits: 8 * Double(bytes) / max(1, count),
          raised: order.map { scan.source.tensors[steps[$0].tensor].name.string }, of: steps.count,
          share: all > 0 ? saved / all : 0, isWeighted: isWeighted))
    }
  }

  private struct Weight {
    var count: Int
    var quantized: Int
    var kept: Int
  }

  private func weight(_ step: Step, _ info: TensorInfo) throws(Failure) -> Weight {
    let stored = try FourBitEncoder(scheme: scheme).outputs(for: info)
    let width = info.type == .f32 ? copiedF32?.byteCount ?? 4 : info.type.bitWidth / 8
    return Weight(
      count: info.elementCount, quantized: stored.reduce(0) { $0.addingSaturated($1.byteCount) },
      kept: info.elementCount.multipliedSaturated(by: width))
  }

  /// Scales are in 32 bits here: what double quantization adds to the loss is a hundredth of it.
  private func measure(
    _ steps: [Step], _ scan: LossScan, _ weigh: (TensorInfo) throws(Failure) -> [Float]?
  ) throws(Failure) -> [Double] {
    let format = scheme.format
    // What a file says of the columns is read once.
    var searches: [TensorName: FourBitSearch] = [:]
    if let search, search.kind != nil {
      for step in steps {
        let info = scan.source.tensors[step.tensor]
        searches[info.name] = try search.search(for: info, blockSize: format.blockSize).get()
      }
    }
    let found = searches
    let read: LossScan.Reading = { values, part, each throws(Failure) in
      let count = values.count
      var codes = ScratchBuffer(byteCount: format.packedByteCount(count))
      var scales = ScratchBuffer(byteCount: 4 * format.blockCount(count))
      var result = ScratchBuffer(byteCount: 4 * count)
      var codeRoom = codes.mutableBytes
      var scaleRoom = scales.mutableFloats
      do throws(NonFinite) {
        if let search = found[part.info.name] {
          try format.quantize(
            values.rawBytes, as: .f32, search: search, column: part.elements.lowerBound, codes: &codeRoom,
            scales: &scaleRoom)
        } else {
          try format.quantize(values.rawBytes, as: .f32, codes: &codeRoom, absmax: &scaleRoom)
        }
      } catch {
        throw Failure(
          .malformed,
          "element \(part.elements.lowerBound + error.index) is \(error.value), a model to be quantized must be finite",
          tensor: part.info.name.string)
      }
      var room = result.mutableBytes
      format.dequantize(
        codes: codes.bytes, absmax: scales.floats, elements: 0..<count, into: &room, as: .f32)
      each(result.floats)
    }
    let losses = try scan.run(steps.map(\.tensor), means: weigh, unit: { _ in format.blockSize }, stored: read)
    return losses.map { $0.first ?? 0 }
  }

  static func rounded(_ bits: Double) -> String { String((bits * 1000).rounded() / 1000) }
}
