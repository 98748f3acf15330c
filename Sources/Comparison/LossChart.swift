import Bytes
import Console

/// Where quantized weights lost most: the worst of them, and each kind of weight from the first layer to the last.
package struct LossChart {
  private struct Weight {
    var name: String
    var loss: Double
  }

  /// Weights that differ in the number of their layer only: for each number the greatest loss.
  private struct Kind {
    var name: String
    var losses: [Int: Double] = [:]
  }

  private static let shown = 5
  private static let barWidth = 24
  /// Layers that have a column of their own; of more, as many as fall together show the worst.
  private static let chartWidth = 60
  private static let levels: [Character] = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"]

  private let worst: [Weight]
  private let kinds: [Kind]

  /// - Parameter losses: for each weight its relative squared error; nil when there is nothing to show.
  package init?(_ losses: [(name: String, loss: Double)]) {
    let finite = losses.filter { $0.loss.isFinite && $0.loss > 0 }
    guard !finite.isEmpty else { return nil }
    worst = finite.enumerated().sorted { ($1.element.loss, $0.offset) < ($0.element.loss, $1.offset) }
      .prefix(Self.shown).map { Weight(name: $0.element.name, loss: $0.element.loss) }
    var kinds: [Kind] = []
    var places: [String: Int] = [:]
    for weight in finite {
      var parts = weight.name.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
      guard let place = parts.firstIndex(where: { Self.number($0) != nil }), let layer = Self.number(parts[place])
      else { continue }
      // Experts of a layer share its place.
      for index in parts.indices where Self.number(parts[index]) != nil { parts[index] = "*" }
      let name = parts.joined(separator: ".")
      let kind = places[name] ?? kinds.count
      if kind == kinds.count {
        places[name] = kind
        kinds.append(Kind(name: name))
      }
      kinds[kind].losses[layer] = max(kinds[kind].losses[layer] ?? 0, weight.loss)
    }
    self.kinds = kinds.filter { $0.losses.count > 1 }
  }

  /// The number of a layer: a few digits and nothing else.
  private static func number(_ text: String) -> Int? {
    text.utf8.count <= 6 && text.utf8.allSatisfy { UInt8(ascii: "0")...UInt8(ascii: "9") ~= $0 } ? Int(text) : nil
  }

  package var text: String {
    let greatest = worst.map(\.loss).max() ?? 1
    let rows = worst.map { weight in
      let bar = Int((Double(Self.barWidth) * weight.loss / greatest).rounded())
      return [
        "  " + weight.name.printable(limit: 512), TensorStatistics.short(weight.loss),
        String(repeating: "█", count: max(1, bar)),
      ]
    }
    var text = Table(
      head: [worst.count == 1 ? "lost" : "lost most", "rel.mse", ""], rows: rows, right: [1]
    ).text
    guard !kinds.isEmpty else { return text }
    let all = kinds.flatMap { $0.losses.values }
    let (least, most) = (all.min() ?? 0, all.max() ?? 1)
    let last = kinds.flatMap { $0.losses.keys }.max() ?? 0
    let charts = kinds.map { kind in
      ["  " + kind.name.printable(limit: 512), chart(kind, last: last, least: least, most: most)]
    }
    text +=
      Table(
        head: [
          "layers 0 to \(last)", "▁ \(TensorStatistics.short(least))  █ \(TensorStatistics.short(most))",
        ], rows: charts, right: []
      ).text
    return text
  }

  private func chart(_ kind: Kind, last: Int, least: Double, most: Double) -> String {
    let width = min(last + 1, Self.chartWidth)
    var columns = [Double?](repeating: nil, count: width)
    for (layer, loss) in kind.losses {
      let column = layer * width / (last + 1)
      columns[column] = max(columns[column] ?? 0, loss)
    }
    return String(
      columns.map { loss in
        guard let loss else { return " " }
        let share = most > least ? (loss - least) / (most - least) : 1
        return Self.levels[min(Self.levels.count - 1, Int(share * Double(Self.levels.count)))]
      })
  }
}
