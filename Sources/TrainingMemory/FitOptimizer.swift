/// The optimizers that can be planned, and their state.
public enum FitOptimizer: String, Sendable, CaseIterable {
  case adamw
  case adamw8bit = "adamw-8bit"
  case pagedAdamW = "paged-adamw"
  case sgd

  /// bitsandbytes keeps smaller tensors in 32 bits (`min_8bit_size`).
  private static let smallest8Bit = 4096
  /// bitsandbytes does not page smaller tensors (`Optimizer8bit.get_state_buffer`).
  private static let smallestPaged = 100_000
  /// Values that share a scale in 8-bit states (`Optimizer2State.init_state`).
  private static let blockSize = 256

  /// Bytes of the state of parameters of these sizes, when they are trained one tensor at a time.
  ///
  ///     adamw        2 × element + 4 a tensor   torch.optim.AdamW: exp_avg, exp_avg_sq as the parameter, step
  ///     paged-adamw  8                          bitsandbytes PagedAdamW: two float32, in memory that the driver
  ///                                             moves to the host when the GPU is full, if 100 000 values or more
  ///     adamw-8bit   2 + 8 for every 256        bitsandbytes AdamW8bit: codes and their float32 maxima; 8 bytes a
  ///                                             value below 4096 values; two maps of 256 float32 for all
  ///     sgd          0                          torch.optim.SGD without momentum
  ///
  /// - Parameter width: bytes of an element of the parameters.
  /// - Returns: what stays on the GPU, and what can be moved to the host.
  package func state(of counts: [Int], width: Checked) -> (resident: Checked, pageable: Checked) {
    switch self {
    case .adamw: return (counts.sum { 2 * width * Checked($0) + 4 }, 0)
    case .sgd: return (0, 0)
    case .pagedAdamW:
      return (
        counts.sum { $0 < Self.smallestPaged ? 8 * Checked($0) : 0 },
        counts.sum { $0 < Self.smallestPaged ? 0 : 8 * Checked($0) }
      )
    case .adamw8bit:
      let maps: Checked = counts.contains { $0 >= Self.smallest8Bit } ? 2048 : 0
      let states = counts.sum { count in
        let n = Checked(count)
        return count < Self.smallest8Bit ? 8 * n : 2 * n + 8 * n.divided(by: Self.blockSize)
      }
      return (states + maps, 0)
    }
  }
}
