public import Bytes

/// The major version of transformers that is to load the result.
public enum LoaderTarget: Sendable, Equatable {
  /// Experts are fused 3-D parameters, whatever the checkpoint stores: they stay as they are.
  case transformers5
  /// Experts stored one by one are linear layers of their own: they are quantized.
  case transformers4
}

/// The treatment of one tensor in quantization.
public enum Disposition: Sendable, Equatable {
  /// The weight of an `nn.Linear`, `[out, in]`.
  case quantize
  /// The weight of a `Conv1D`, stored `[in, out]`, transposed before it is quantized.
  case quantizeTransposed
  /// Copied as it is.
  case keep(KeepReason)
}

/// Why a tensor is not quantized.
public enum KeepReason: Sendable, Equatable, CaseIterable {
  /// Bias, norm, embedding, convolution, a free parameter: not the weight of a linear layer.
  case notLinear
  /// The linear layer that `get_output_embeddings()` names, usually `lm_head`.
  case outputEmbedding
  /// Shares its storage with another parameter.
  case tied
  /// The last of the model's `named_parameters()`.
  case lastParameter
  /// Listed in the class's `_keep_in_fp32_modules`.
  case fp32Module
  /// A routed expert, fused or stored one by one.
  case expert
  /// Chooses the experts.
  case router
  /// Merged, split or permuted with others when the checkpoint is loaded, which packed codes do not survive.
  case converted
  /// Named by `--keep`.
  case userKept
  /// The entry of another kept layer matches this one too, because the loader compares the ends of names.
  case collision
  /// No parameter of the model has this name: transformers ignores it.
  case unknown
}

/// The answer for a whole checkpoint.
public struct WeightPlan: Sendable {
  /// The treatment of each tensor, in the order given.
  public var dispositions: [Disposition]
  /// For each tensor the path, as the model names it, of the linear layer whose weight it is; nil for others.
  public var modules: [String?]
  /// Full paths, as the model (not the checkpoint) names its modules, of every linear layer that stays in
  /// floating point; for `llm_int8_skip_modules`. Sorted by bytes, without duplicates, never empty when
  /// the model has such a layer.
  public var skipModules: [String]
  /// Tensors of routed experts that stay as they are, and their size in bytes.
  public var expertTensors: Int
  public var expertBytes: Int
  /// Why no 4-bit form of this checkpoint could be loaded, in one line; nil when it can.
  public var refusal: String?
  /// Warnings of one line each, no full stop.
  public var warnings: [Warning]
}
