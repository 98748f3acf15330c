import Bytes
import Tensors

/// One strategy's memory on one GPU.
///
///     weights     full, lora-bf16: elements × e; qlora: packed codes and statistics of the linear layers, the rest in e
///                 (`prepare_model_for_kbit_training`, which would widen the rest to float32, is not assumed)
///     adapter     rank × (inputs + outputs) × 4 for each target: PEFT keeps adapters of 16-bit models in float32
///                 (`autocast_adapter_dtype`); FSDP wants one dtype, so qlora-fsdp has them in e
///     gradients   those of what is trained, in its dtype
///     optimizer   `FitOptimizer`
///     overhead    `framework`; loss buffers; qlora: the largest linear layer in 16 bits, dequantized
///                 (`bitsandbytes.autograd.MatMul4Bit` holds one at a time)
///
/// Several GPUs: without ZeRO every GPU holds all of it, and DistributedDataParallel gradients a second time, in its
/// buckets. ZeRO-2 divides gradients and optimizer, which there includes a float32 copy of what is trained and float32
/// states (DeepSpeed `stage_1_and_2.py`). ZeRO-3 also divides weights and adapter, but of a 4-bit model each process
/// holds all weights (transformers does not create those under `zero.Init`). qlora-fsdp divides all but the
/// statistics of the 4-bit weights, which are no parameters. Whoever divides weights gathers them: two layers, and
/// what stands outside of the layers. Not counted: buckets of ZeRO and FSDP, the optimizer's own temporaries, fragmentation.
struct FitCalculation: Sendable {
  let model: FitModel
  let strategy: FitStrategy
  let options: Fit

  /// CUDA context, library handles and workspaces: an assumption, in bytes; drivers and cards differ.
  static let framework = 512 << 20

  private var trainsEverything: Bool { strategy == .full }
  /// Bytes of an element of what is trained.
  private var trainedWidth: Checked { trainsEverything || strategy == .qloraFSDP ? model.width : 4 }
  private var usesZeRO: Bool { options.zeroStage >= 2 && strategy != .qloraFSDP }
  private var shardsWeights: Bool {
    options.gpus > 1 && (strategy == .qloraFSDP || options.zeroStage == 3 && !strategy.usesFourBits)
  }
  private var shardsAdapter: Bool { options.gpus > 1 && (strategy == .qloraFSDP || options.zeroStage == 3) }
  private var shardsStates: Bool { usesZeRO || strategy == .qloraFSDP }

  /// Elements of each tensor that is trained.
  ///
  /// - Throws: `malformed` when a product overflows.
  private func trained() throws(Failure) -> [Int] {
    guard !trainsEverything else { return model.parameters.map(\.info.elementCount) }
    var counts: [Int] = []
    for target in model.targets {
      for size in target.info.shape {
        counts.append(try (Checked(size) * Checked(options.rank)).number("parameters of the adapter"))
      }
    }
    return counts
  }

  private func bytes(of parameter: FitParameter) -> Checked {
    if strategy.usesFourBits, parameter.fourBit != nil { return parameter.codeBytes }
    return model.width * Checked(parameter.info.elementCount)
  }

  /// What can be divided and what cannot.
  private func weights() -> (parameters: Checked, statistics: Checked) {
    let statistics = strategy.usesFourBits ? model.parameters.sum(\.statisticsBytes) : 0
    return (model.parameters.sum(bytes), statistics)
  }

  private func divided(_ bytes: Checked, _ isDivided: Bool) -> Checked {
    isDivided ? bytes.divided(by: options.gpus) : bytes
  }

  /// Two layers, and all that stands outside of the layers.
  private func gathered() -> Checked {
    let outside = model.parameters.sum { $0.layer == nil ? bytes(of: $0) : 0 }
    return outside + 2 * model.parameters.sum { $0.layer == 0 ? bytes(of: $0) : 0 }
  }

  /// State of the optimizer for a whole model, and what of it can leave the GPU.
  func optimizerState() throws(Failure) -> (resident: Checked, pageable: Checked) {
    let optimizer = strategy == .qloraPaged ? .pagedAdamW : options.optimizer
    let counts = try trained()
    var state = optimizer.state(of: counts, width: usesZeRO ? 4 : trainedWidth)
    if usesZeRO { state.resident += 4 * counts.sum { Checked($0) } }
    return state
  }

  /// What does not depend on the batch, and `Activations` for the rest.
  func fixed() throws(Failure) -> Fixed {
    let weights = weights()
    let counts = try trained()
    let trainedBytes = trainedWidth * counts.sum { Checked($0) }
    let gradients = divided(trainedBytes, shardsStates)
    var overhead = Checked(Self.framework)
    if strategy.usesFourBits {
      let largest = model.parameters.filter { $0.fourBit != nil }.map(\.info.elementCount).max() ?? 0
      overhead += model.width * Checked(largest)
    }
    if options.gpus > 1, !shardsStates { overhead += gradients }
    if shardsWeights { overhead += gathered() }
    let width = try trainedWidth.number("bytes of an element")
    return Fixed(
      weights: divided(weights.parameters, shardsWeights) + weights.statistics,
      adapter: trainsEverything ? 0 : divided(trainedBytes, shardsAdapter), gradients: gradients,
      optimizer: divided(try optimizerState().resident, shardsStates), overhead: overhead,
      activations: Activations(
        model, trainsEverything ? .everything : .adapter(rank: options.rank, width: width)),
      checkpointing: options.checkpointing)
  }

  struct Fixed: Sendable {
    let weights, adapter, gradients, optimizer, overhead: Checked
    let activations: Activations
    let checkpointing: Bool

    func total(batch: Int, sequence: Int) -> Checked {
      weights + adapter + gradients + optimizer + overhead
        + activations.lossBuffers(batch: batch, sequence: sequence)
        + activations.bytes(batch: batch, sequence: sequence, checkpointing: checkpointing)
    }

    /// - Throws: `malformed` when a sum overflows.
    func footprint(batch: Int, sequence: Int) throws(Failure) -> FitFootprint {
      let loss = activations.lossBuffers(batch: batch, sequence: sequence)
      return FitFootprint(
        weights: try weights.number("bytes of the weights"), adapter: try adapter.number("bytes of the adapter"),
        gradients: try gradients.number("bytes of the gradients"),
        optimizer: try optimizer.number("bytes of the optimizer"),
        activations: try activations.bytes(batch: batch, sequence: sequence, checkpointing: checkpointing)
          .number("bytes of the activations"),
        overhead: try (overhead + loss).number("bytes of the loss"),
        total: try total(batch: batch, sequence: sequence).number("bytes of training"))
    }
  }
}
