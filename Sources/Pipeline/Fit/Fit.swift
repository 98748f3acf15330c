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
  /// On each GPU.
  public var batch = 1
  public var sequenceLength = 2048
  public var optimizer = FitOptimizer.adamw
  /// 0, 2 or 3.
  public var zeroStage = 0
  public var checkpointing = true

  /// The search for the longest sequence and the largest batch ends here.
  public static let searchLimit = 1 << 24
  /// A process of Python with torch, transformers and bitsandbytes: an assumption, in bytes.
  static let processBytes = 2 << 30

  public init() {}

  /// - Parameter path: a checkpoint, or a config.json.
  /// - Throws: `malformed` when a size overflows; what `FitModel` throws.
  public func callAsFunction(_ path: String) throws(Failure) -> FitReport {
    var model = try FitModel(path: path)
    do throws(Failure) {
      try model.select(targetModules)
      return try report(model, path)
    } catch { throw error.located(file: path) }
  }

  private func report(_ model: FitModel, _ path: String) throws(Failure) -> FitReport {
    var rows: [FitReport.Row] = []
    for strategy in FitStrategy.allCases {
      let fixed = try FitCalculation(model: model, strategy: strategy, options: self).fixed()
      rows.append(
        FitReport.Row(
          strategy: strategy, perGPU: try fixed.footprint(batch: batch, sequence: sequenceLength), budget: gpuBytes,
          longestSequence: largest { fixed.total(batch: batch, sequence: $0) },
          largestBatch: largest { fixed.total(batch: $0, sequence: sequenceLength) }))
    }
    return FitReport(
      path: path, options: self, parameters: try model.elementCount.number("parameters"), type: model.type.torchName,
      targets: model.targets.count, rows: rows, hostMemory: try hostMemory(model), disk: try disk(model),
      warnings: model.warnings)
  }

  /// The largest number whose bytes fit, by bisection: bytes only grow with it.
  private func largest(_ bytes: (Int) -> Checked) -> Int {
    func fits(_ number: Int) -> Bool { bytes(number).value.map { $0 <= gpuBytes } ?? false }
    var low = 0
    var high = Self.searchLimit + 1
    while high - low > 1 {
      let middle = low + (high - low) / 2
      if fits(middle) { low = middle } else { high = middle }
    }
    return low
  }

  /// A process for each GPU, and the larger of what `qlora-paged` moves out of all GPUs and the 4-bit model that
  /// `qlora-fsdp` loads in one of the processes before it is sharded.
  private func hostMemory(_ model: FitModel) throws(Failure) -> Int {
    let paged = try FitCalculation(model: model, strategy: .qloraPaged, options: self).optimizerState().pageable
    let weights = model.fourBitBytes
    return try (Checked(gpus) * Checked(Self.processBytes) + .max(Checked(gpus) * paged, weights))
      .number("bytes of host memory")
  }

  /// The model in 16 bits, the same in NF4, and one checkpoint of QLoRA's training: adapter and optimizer.
  private func disk(_ model: FitModel) throws(Failure) -> Int {
    let calculation = FitCalculation(model: model, strategy: .qlora, options: self)
    let state = try calculation.optimizerState()
    let adapter = model.targets.sum { $0.info.shape.sum { Checked($0) } * Checked(rank) * 4 }
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
