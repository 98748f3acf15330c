public import Bytes
import Quantization
import Tensors

/// `nibble fit`: whether training fits on these GPUs, from headers and configuration alone.
public struct Fit: Sendable {
  public var gpus = 1
  /// Memory of one GPU.
  public var gpuBytes = 24 << 30
  public var rank = 64
  /// Last names of the modules with an adapter; nil for all linear layers but the output embedding.
  public var targetModules: [String]?
  /// The batch size on each GPU.
  public var batch = 1
  /// Nil for 2048, or as many as the model was made for if those are fewer.
  public var sequenceLength: Int?
  public var optimizer = FitOptimizer.adamw
  /// DeepSpeed's ZeRO stage: 0, 2 or 3.
  public var zeroStage = 0
  public var checkpointing = true
  /// The directory of the configuration, where it is not beside the weights.
  public var config: String?

  /// How far what a card really takes may be from what is planned: as a part of the latter, 1 / 10.
  public static let tolerance = 10
  /// The search for a number of cards that would do ends here.
  static let cardLimit = 65_536
  static let defaultSequence = 2048
  /// The search for the longest sequence and the largest batch ends here.
  public static let searchLimit = 1 << 24
  /// A process of Python with torch, transformers and bitsandbytes: an assumption, in bytes.
  static let processBytes = 2 << 30

  public init() {}

  /// - Parameter path: a checkpoint, or a config.json.
  /// - Throws: `malformed` when a size overflows; what `FitModel` throws.
  public func callAsFunction(_ path: String) throws(Failure) -> FitReport {
    var model = try FitModel(path: path, config: config)
    do throws(Failure) {
      try model.select(targetModules)
      return try report(model, path)
    } catch { throw error.located(file: path) }
  }

  private func report(_ model: FitModel, _ path: String) throws(Failure) -> FitReport {
    let positions = model.decoder.positions
    let sequence = sequenceLength ?? min(Self.defaultSequence, positions ?? .max)
    let isBeyond = positions.map { sequence > $0 } ?? false
    var warnings = model.warnings
    if let positions, isBeyond {
      warnings.append(
        "sequences of \(sequence) tokens are beyond the \(positions) that the model was made for: nothing is promised")
    }
    if let refusal = model.refusal { warnings.append("qlora is not offered: \(refusal)") }
    var rows: [FitReport.Row] = []
    var cards: FitReport.Cards?
    for strategy in FitStrategy.allCases where model.refusal == nil || !strategy.usesFourBits {
      let calculation = try calculation(model, strategy)
      let fixed = calculation.fixed
      let needed = isBeyond ? nil : self.cards(calculation, sequence)
      if let needed, needed.count < cards?.count ?? .max { cards = needed }
      guard gpus > 1 || !strategy.needsSeveral else { continue }
      let largestBatch = isBeyond ? 0 : largest { fixed.total(batch: $0, sequence: sequence) }
      rows.append(
        FitReport.Row(
          strategy: strategy, perGPU: try fixed.footprint(batch: batch, sequence: sequence), budget: gpuBytes,
          isPromised: !isBeyond,
          longestSequence: largest(to: positions) { fixed.total(batch: batch, sequence: $0) },
          largestBatch: largestBatch, cards: needed))
    }
    return FitReport(
      path: path, options: self, sequence: sequence, positions: positions,
      parameters: try model.elementCount.number("parameters"), type: model.type.torchName,
      targets: model.targets.count, rows: rows, cards: cards, hostMemory: try hostMemory(model),
      disk: try disk(model), warnings: warnings)
  }

  private func calculation(_ model: FitModel, _ strategy: FitStrategy) throws(Failure) -> FitCalculation {
    try FitCalculation(model: model, strategy: strategy, options: self)
  }

  /// The least cards of this size with which a strategy fits: as they are asked for, or, where no number of those
  /// does, with everything divided that can be (ZeRO-3).
  private func cards(_ calculation: FitCalculation, _ sequence: Int) -> FitReport.Cards? {
    let strategy = calculation.strategy
    var stages = [zeroStage]
    if zeroStage < 3, strategy != .qloraFSDP { stages.append(3) }
    for stage in stages {
      var calculation = calculation
      calculation.options.zeroStage = stage
      func fits(_ count: Int) -> Bool {
        calculation.options.gpus = count
        return calculation.fixed.total(batch: batch, sequence: sequence).value.map { $0 <= gpuBytes } ?? false
      }
      if !strategy.needsSeveral, fits(1) { return FitReport.Cards(count: 1, strategy: strategy, zeroStage: stage) }
      guard fits(Self.cardLimit) else { continue }
      // With two and more, bytes only shrink with their number.
      var low = 1
      var high = Self.cardLimit
      while high - low > 1 {
        let middle = low + (high - low) / 2
        if fits(middle) { high = middle } else { low = middle }
      }
      return FitReport.Cards(count: high, strategy: strategy, zeroStage: stage)
    }
    return nil
  }

  /// The largest number whose bytes fit, by bisection: bytes only grow with it.
  private func largest(to limit: Int? = nil, _ bytes: (Int) -> Checked) -> Int {
    func fits(_ number: Int) -> Bool { bytes(number).value.map { $0 <= gpuBytes } ?? false }
    var low = 0
    var high = min(limit ?? .max, Self.searchLimit) + 1
    while high - low > 1 {
      let middle = low + (high - low) / 2
      if fits(middle) { low = middle } else { high = middle }
    }
    return low
  }

  /// A process for each GPU, and the larger of what `qlora-paged` moves out of all GPUs and the 4-bit model that
  /// `qlora-fsdp` loads in one of the processes before it is sharded.
  private func hostMemory(_ model: FitModel) throws(Failure) -> Int {
    guard model.refusal == nil else { return try (Checked(gpus) * Checked(Self.processBytes)).number("bytes") }
    let paged = try calculation(model, .qloraPaged).optimizerState.pageable
    let weights = model.fourBitBytes
    return try (Checked(gpus) * Checked(Self.processBytes) + .max(Checked(gpus) * paged, weights))
      .number("bytes of host memory")
  }

  /// The model in 16 bits, the same in NF4, and one checkpoint of QLoRA's training: adapter and optimizer.
  private func disk(_ model: FitModel) throws(Failure) -> Int {
    let state = try calculation(model, .qlora).optimizerState
    let adapter = model.targets.compactMap(\.role.adapter).sum {
      (Checked($0.inputs) + Checked($0.outputs)) * Checked(rank) * 4
    }
    return try (model.width * model.elementCount + model.fourBitBytes + adapter + state.resident + state.pageable)
      .number("bytes on disk")
  }
}

extension FitModel {
  /// With the linear layers in 4 bits, statistics included.
  var fourBitBytes: Checked {
    parameters.sum { parameter in
      parameter.fourBit == nil
        ? width * Checked(parameter.info.elementCount) : parameter.codeBytes + parameter.statisticsBytes
    }
  }
}
