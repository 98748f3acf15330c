import Bytes
import JSON
import Tensors

/// The differences of the tensors that stand in the same place of every layer.
package struct DiffKind {
  /// `model.layers.*.mlp.up_proj.weight`.
  var name: String
  var changed = 0
  var sameValues = 0
  var onlyInA = 0
  var onlyInB = 0
  var equal = 0
  /// The largest of those that can be measured.
  var relative: Double?

  var total: Int { changed + sameValues + onlyInA + onlyInB + equal }

  static let headings = ["tensors", "changed", "max.relative", "dtype only", "only in A", "only in B", "equal"]

  var cells: [String] {
    func count(_ value: Int) -> String { value == 0 ? "-" : String(value) }
    return [
      name.printable(limit: 512), count(changed), relative.map(TensorStatistics.short) ?? "-", count(sameValues),
      count(onlyInA), count(onlyInB), count(equal),
    ]
  }

  func write(to writer: inout JSONWriter) {
    writer.beginObject(.line)
    writer.member("name", name)
    writer.member("changed", changed)
    writer.member("sameValues", sameValues)
    writer.member("onlyInA", onlyInA)
    writer.member("onlyInB", onlyInB)
    writer.member("equal", equal)
    writer.member("relative", JSONValue(measured: relative))
    writer.end()
  }
}

extension Diff.Result {
  /// The kinds of tensors, those of the largest change first, then by name.
  package var kinds: [DiffKind] {
    var kinds: [String: DiffKind] = [:]
    func count(_ name: TensorName, _ count: (inout DiffKind) -> Void) {
      let kind = name.kind
      count(&kinds[kind, default: DiffKind(name: kind)])
    }
    for change in changed {
      count(change.name) { kind in
        kind.changed += 1
        if let relative = change.relative { kind.relative = max(kind.relative ?? 0, relative) }
      }
    }
    for same in sameValues { count(same.name) { $0.sameValues += 1 } }
    for name in onlyInA { count(name) { $0.onlyInA += 1 } }
    for name in onlyInB { count(name) { $0.onlyInB += 1 } }
    for name in unchanged { count(name) { $0.equal += 1 } }
    return kinds.values.sorted { left, right in
      let (x, y) = (left.relative ?? -1, right.relative ?? -1)
      return x == y ? left.name < right.name : x > y
    }
  }
}

extension TensorName {
  /// The name with `*` for its numbers, which those of all layers and experts share.
  package var kind: String {
    string.split(separator: ".", omittingEmptySubsequences: false)
      .map { $0.utf8.isEmpty || !$0.utf8.allSatisfy { (0x30...0x39).contains($0) } ? String($0) : "*" }
      .joined(separator: ".")
  }
}
