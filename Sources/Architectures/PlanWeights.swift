public import Tensors

/// Decides which tensors become 4-bit weights, from the headers and the configuration alone.
///
/// The rule is that of transformers 5 with bitsandbytes: every `nn.Linear` and `Conv1D` except the output
/// embedding, tied weights, a last parameter that is a weight, and the class's fp32 modules.
///
/// - Parameters:
///   - tensors: all tensors of the checkpoint, in any order.
///   - keep: what else is to stay as it is.
public func planWeights(
  _ tensors: [TensorInfo], configuration: ModelConfiguration, target: LoaderTarget, keep: [Keep]
) -> WeightPlan {
  WeightPlan(
    dispositions: tensors.map { _ in .keep(.notLinear) }, skipModules: [], expertTensors: 0, expertBytes: 0,
    warnings: [])
}
