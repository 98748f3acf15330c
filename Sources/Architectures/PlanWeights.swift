public import Tensors

/// Decides which tensors become 4-bit weights, from the headers and the configuration alone.
///
/// The rule is that of transformers 5 with bitsandbytes: every `nn.Linear` and `Conv1D` except the output
/// embedding, tied weights, a last parameter that is a weight, and the class's fp32 modules. Experts and
/// whatever the loader merges or splits stay as they are too, since packed codes would not survive it.
///
/// - Parameters:
///   - tensors: all tensors of the checkpoint, in any order.
///   - keep: what else is to stay as it is.
public func planWeights(
  _ tensors: [TensorInfo], configuration: ModelConfiguration, target: LoaderTarget, keep: [Keep]
) -> WeightPlan {
  var planner = Planner(tensors, target: target)
  let rule = configuration.architecture.flatMap { ClassRule(architecture: $0) }
  let ties = configuration.tiesWordEmbeddings ?? configuration.textTiesWordEmbeddings
  let isBase = ["Model", "Encoder"].contains { configuration.architecture?.hasSuffix($0) == true }
  if let rule, planner.apply(rule, ties: ties ?? rule.tiesByDefault, isBase: isBase) {
    planner.keepConverted()
  } else {
    planner.applyNameRules(
      reason: rule == nil
        ? configuration.architecture.map { "model class '\($0)' is not known" } ?? "config.json names no model class"
        : "no tensor has a name that \(configuration.architecture ?? "") knows")
  }
  planner.skipExperts()
  planner.keep(keep)
  if let rule { planner.skipHeads(ofBase: configuration.architecture ?? "", rule) }
  planner.resolveCollisions()
  return planner.plan
}
