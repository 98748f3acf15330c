import Bytes

/// One strategy's memory on one GPU.
///
///     weights     full, lora-bf16: elements × e; qlora: packed codes and statistics of the linear layers, the rest in e
///                 (`prepare_model_for_kbit_training`, which would widen the rest to float32, is not assumed);
///                 experts are no linear layers since transformers 5, which stacks them: they stay in e
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
  let strategy: FitStrategy
  var options: Fit
  private let sums: FitSums

  /// CUDA context, library handles and workspaces: an assumption, in bytes; drivers and cards differ.
  static let framework = 512 << 20

  /// - Throws: `malformed` when a size of the adapter overflows.
  init(model: FitModel, strategy: FitStrategy, options: Fit) throws(Failure) {
    self.strategy = strategy
    self.options = options
    sums = try FitSums(model, strategy, options)
  }

  private var usesZeRO: Bool { options.zeroStage >= 2 && strategy != .qloraFSDP }
  private var shardsWeights: Bool {
    options.gpus > 1 && (strategy == .qloraFSDP || options.zeroStage == 3 && !strategy.usesFourBits)
  }
  private var shardsAdapter: Bool { options.gpus > 1 && (strategy == .qloraFSDP || options.zeroStage == 3) }
  private var shardsStates: Bool { usesZeRO || strategy == .qloraFSDP }

  private func divided(_ bytes: Checked, _ isDivided: Bool) -> Checked {
    isDivided ? bytes.divided(by: options.gpus) : bytes
  }

  /// State of the optimizer for a whole model, and what of it can leave the GPU.
  var optimizerState: (resident: Checked, pageable: Checked) {
    guard usesZeRO else { return sums.state }
    return (sums.floatState.resident + 4 * sums.trained, sums.floatState.pageable)
  }

  /// The bytes that do not depend on the batch, and `Activations` for the rest.
  var fixed: Fixed {
    let trainedBytes = sums.trainedWidth * sums.trained
    let gradients = divided(trainedBytes, shardsStates)
    var overhead = Checked(Self.framework) + sums.dequantized
    if options.gpus > 1, !shardsStates { overhead += gradients }
    if shardsWeights { overhead += sums.gathered }
    return Fixed(
      weights: divided(sums.weights, shardsWeights) + sums.statistics,
      adapter: strategy == .full ? 0 : divided(trainedBytes, shardsAdapter), gradients: gradients,
      optimizer: divided(optimizerState.resident, shardsStates), overhead: overhead, activations: sums.activations,
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
