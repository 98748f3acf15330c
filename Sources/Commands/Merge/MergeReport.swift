import Adapters
import Bytes
import Comparison
import Console
import Tensors
public import Writing

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
  /// A table of the tensors that adapters changed: a line for each kind of tensor, or for each tensor.
  public func changesTable(isVerbose: Bool) -> String {
    guard let changes, !changes.isEmpty else { return "" }
    return isVerbose ? Self.table(changes) : Self.kinds(changes)
  }

  private static func table(_ changes: [MergeChange]) -> String {
    let rows = changes.map { change in
      [
        change.tensor.printable(limit: 200), change.adapter.printable(limit: 80), scale(change),
        change.relativeChange.map(percent) ?? "",
      ]
    }
    return Table(head: ["tensor", "adapter", "scale", "change"], rows: rows, right: [2, 3]).text
  }

  /// Tensors of the same place in every layer, which one adapter changes by one scale, together.
  private static func kinds(_ changes: [MergeChange]) -> String {
    var order: [[String]] = []
    var groups: [[String]: [MergeChange]] = [:]
    for change in changes {
      let key = [TensorName(change.tensor).kind, change.adapter, scale(change)]
      if groups[key] == nil { order.append(key) }
      groups[key, default: []].append(change)
    }
    let rows = order.map { key -> [String] in
      let group = groups[key] ?? []
      // One of its kind keeps its number.
      let name = group.count == 1 ? group[0].tensor : key[0]
      let found = group.compactMap(\.relativeChange)
      return [
        name.printable(limit: 200), String(group.count), key[1].printable(limit: 80), key[2],
        range(found.min(), found.max()),
      ]
    }
    return Table(head: ["tensors", "number", "adapter", "scale", "change"], rows: rows, right: [1, 3, 4]).text
  }

  private static func scale(_ change: MergeChange) -> String { change.scale.map(shortNumber) ?? "replaced" }

  private static func percent(_ value: Double) -> String { shortNumber(100 * value) + " %" }

  private static func range(_ low: Double?, _ high: Double?) -> String {
    guard let low, let high else { return "" }
    let (from, to) = (percent(low), percent(high))
    return from == to ? from : "\(shortNumber(100 * low)) to \(to)"
  }
}
