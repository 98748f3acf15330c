import Bytes
import Console
import JSON
import Tensors

extension Diff.Result {
  /// The object that `--json` prints, a tensor on each line; written as it goes: a tree of it would be larger than the
  /// headers.
  public var json: [UInt8] {
    var writer = JSONWriter()
    writer.beginObject(.indented)
    writer.key("equal")
    writer.bool(isEqual)
    writer.member("onlyInA", names: onlyInA)
    writer.member("onlyInB", names: onlyInB)
    writer.key("changed")
    writer.beginArray(.indented)
    for change in changed.prefix(shown) { change.write(to: &writer) }
    writer.end()
    writer.key("sameValues")
    writer.beginArray(.indented)
    for same in sameValues {
      writer.beginObject(.line)
      writer.member("name", same.name.string)
      writer.member("dtype", [.string(same.types.a), .string(same.types.b)])
      writer.end()
    }
    writer.end()
    if isSummary {
      writer.key("kinds")
      writer.beginArray(.indented)
      for kind in kinds { kind.write(to: &writer) }
      writer.end()
    }
    writer.member("warnings", .array(warnings.map(\.json)), .line)
    writer.end()
    return writer.bytes
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
  fileprivate func write(to writer: inout JSONWriter) {
    writer.beginObject(.line)
    writer.member("name", name.string)
    writer.member("dtype", [.string(types.a), .string(types.b)])
    writer.key("shape")
    writer.beginArray(.line)
    for shape in [shapes.a, shapes.b] { writer.value(.array(shape.map(JSONValue.number))) }
    writer.end()
    writer.member("elements", elements.map(JSONValue.number) ?? .null)
    writer.member("differing", differing.map(JSONValue.number) ?? .null)
    writer.member("maxAbs", JSONValue(measured: largest))
    writer.member("relative", JSONValue(measured: relative))
    writer.end()
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

extension JSONWriter {
  /// A list on one line.
  fileprivate mutating func member(_ key: String, names: [TensorName]) {
    self.key(key)
    beginArray(.line)
    for name in names { string(name.string) }
    end()
  }
}

extension JSONValue {
  /// Null for what was not measured, or is no finite number.
  package init(measured value: Double?) { self = value.flatMap(JSONNumber.init).map(JSONValue.number) ?? .null }
}
