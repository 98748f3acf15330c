import Adapters
import Tensors

/// One adapter's part in one tensor, as a report tells it.
public struct MergeChange: Sendable {
  public var tensor: String
  public var adapter: String
  /// What B·A was multiplied by; nil where the adapter replaced values.
  public var scale: Double?
  /// ‖W′ − W‖ / ‖W‖ of the tensor; nil before it was computed, and where the shape changed.
  public var relativeChange: Double?
}

enum MergeReport {
  static func changes(_ plan: MergePlan) -> [MergeChange] {
    plan.changes.map { change in
      MergeChange(
        tensor: plan.source.tensors[change.tensor].name.string, adapter: change.adapter, scale: change.scale,
        relativeChange: plan.source.relativeChange(of: change.tensor).flatMap { $0.isFinite ? $0 : nil })
    }
  }
}
