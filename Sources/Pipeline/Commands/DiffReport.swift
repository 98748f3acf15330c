import Bytes
import JSON
import Tensors

extension Diff.Result {
  /// The object that `--json` prints, written as text: a tree of it would be larger than the headers.
  public var json: String {
    var text = "{\n  \"equal\": \(isEqual),\n  \"onlyInA\": \(Self.list(onlyInA)),\n"
    text += "  \"onlyInB\": \(Self.list(onlyInB)),\n  \"changed\": ["
    for (index, change) in changed.prefix(shown).enumerated() {
      text += "\(index == 0 ? "" : ",")\n    \(change.json)"
    }
    text += changed.isEmpty ? "],\n" : "\n  ],\n"
    text += "  \"sameValues\": ["
    for (index, same) in sameValues.enumerated() {
      text += "\(index == 0 ? "" : ",")\n    {\"name\": \(same.name.string.jsonText), "
      text += "\"dtype\": [\"\(same.types.a)\", \"\(same.types.b)\"]}"
    }
    text += sameValues.isEmpty ? "],\n" : "\n  ],\n"
    if isSummary {
      text += "  \"kinds\": ["
      for (index, kind) in kinds.enumerated() { text += "\(index == 0 ? "" : ",")\n    \(kind.json)" }
      text += kinds.isEmpty ? "],\n" : "\n  ],\n"
    }
    return text + "  \"warnings\": [\(warnings.map(\.description.jsonText).joined(separator: ", "))]\n}"
  }

  /// A line for each change of dtype: it is one of all tensors, as a rule.
  private var sameValuesText: String {
    var names: [String: [String]] = [:]
    for same in sameValues { names["\(same.types.a) → \(same.types.b)", default: []].append(same.name.string) }
    return names.sorted { $0.key < $1.key }.map { types, names in
      let list: Warning =
        "same values, \(types): \(names.count == 1 ? "1 tensor" : "\(names.count) tensors"), \(list: names)"
      return (isVerbose ? list.description : list.brief) + "\n"
    }.joined()
  }

  private static func list(_ names: [TensorName]) -> String {
    "[\(names.map(\.string.jsonText).joined(separator: ", "))]"
  }

  /// A table of what changed, names that are in one checkpoint only, and a line that sums it up.
  public var text: String {
    var text = ""
    if isSummary {
      let rows = kinds.filter { $0.total > $0.equal }.map(\.cells)
      if !rows.isEmpty { text += Table(head: DiffKind.headings, rows: rows, right: [1, 2, 3, 4, 5, 6]).text }
    } else {
      if !changed.isEmpty {
        text += Table(head: Diff.Change.headings, rows: changed.prefix(shown).map(\.cells), right: [3, 4, 5, 6]).text
      }
      if changed.count > shown { text += "and \(changed.count - shown) that changed less\n" }
      text += sameValuesText
      for name in onlyInA { text += "only in A: \(name.string.printable(limit: 512))\n" }
      for name in onlyInB { text += "only in B: \(name.string.printable(limit: 512))\n" }
    }
    if isEqual { return text + "equal: \(unchanged.count) tensors\n" }
    let same = sameValues.isEmpty ? "" : "\(sameValues.count) of the same values in another dtype, "
    return text
      + "different: \(changed.count) changed, \(same)\(onlyInA.count) only in A, \(onlyInB.count) only in B, "
      + "\(unchanged.count) equal\n"
  }
}

extension Diff.Change {
  fileprivate var json: String {
    func number(_ value: Int?) -> String { value.map(String.init) ?? "null" }
    func number(_ value: Double?) -> String { value.flatMap { JSONNumber($0)?.text } ?? "null" }
    return "{\"name\": \(name.string.jsonText), \"dtype\": [\"\(types.a)\", \"\(types.b)\"], "
      + "\"shape\": [\(Self.text(shapes.a)), \(Self.text(shapes.b))], \"elements\": \(number(elements)), "
      + "\"differing\": \(number(differing)), \"maxAbs\": \(number(largest)), \"relative\": \(number(relative))}"
  }

  fileprivate static let headings = ["tensor", "dtype", "shape", "elements", "differing", "max.abs", "relative"]

  fileprivate var cells: [String] {
    func change(_ a: String, _ b: String) -> String { a == b ? a : "\(a) → \(b)" }
    return [
      name.string.printable(limit: 512), change(types.a, types.b), change(Self.text(shapes.a), Self.text(shapes.b)),
      elements.map(String.init) ?? "-", differing.map(String.init) ?? "-",
      largest.map(TensorStatistics.short) ?? "-", relative.map(TensorStatistics.short) ?? "-",
    ]
  }

  private static func text(_ shape: [Int]) -> String { "[\(shape.map(String.init).joined(separator: ", "))]" }
}
