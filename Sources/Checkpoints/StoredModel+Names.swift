package import Architectures
import Tensors

extension StoredModel {
  /// The name of each logical tensor in the model class.
  package var names: ParameterNames {
    ParameterNames(logical.items.map { logical.info($0).name }, configuration: configuration)
  }

  /// Positions of the weights that would be quantized.
  package var quantizedWeights: Set<Int> {
    let plan = weightPlan
    return Set(
      plan.dispositions.indices.filter {
        plan.dispositions[$0] == .quantize || plan.dispositions[$0] == .quantizeTransposed
      })
  }
}
