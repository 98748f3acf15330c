/// The ways to train that are planned.
public enum FitStrategy: String, Sendable, CaseIterable {
  /// Every parameter, in 16 bits.
  case full
  /// A LoRA adapter on the model in 16 bits.
  case lora = "lora-bf16"
  /// A LoRA adapter on the model in NF4 with double quantization.
  case qlora
  /// The same, its optimizer's state in memory that the driver moves to the host when the GPU is full.
  case qloraPaged = "qlora-paged"
  /// The same, weights, adapter, gradients and optimizer sharded over the GPUs.
  case qloraFSDP = "qlora-fsdp"

  /// Nothing to divide on one card.
  var needsSeveral: Bool { self == .qloraFSDP }

  var usesFourBits: Bool { self != .full && self != .lora }
}
