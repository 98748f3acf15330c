import Adapters
import Bytes
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

extension RunReport {
  /// A line for each tensor that an adapter changed.
  public var changesTable: String {
    guard let changes, !changes.isEmpty else { return "" }
    let rows = changes.map { change in
      [
        change.tensor.printable(limit: 200), change.adapter.printable(limit: 80),
        change.scale.map(shortNumber) ?? "replaced", change.relativeChange.map { shortNumber(100 * $0) + " %" } ?? "",
      ]
    }
    return Table(head: ["tensor", "adapter", "scale", "change"], rows: rows, right: [2, 3]).text
  }
}
