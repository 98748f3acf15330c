public import Bytes
import Console
package import JSON

/// The results of `nibble fit`.
public struct FitReport: Sendable {
  public struct Row: Sendable {
    public var strategy: FitStrategy
    public var perGPU: FitFootprint
    /// Memory of one GPU, in bytes.
    public var budget: Int
    /// False for sequences beyond what the model was made for.
    public var isPromised: Bool
    /// Tokens that fit with the batch asked for; 0 when none does.
    public var longestSequence: Int
    /// Sequences that fit with the length asked for.
    public var largestBatch: Int
    /// How many cards of this size it takes; nil when no number does.
    public var cards: Cards?

    public var fits: Bool { isPromised && perGPU.total <= budget }
    /// Bytes of the budget that are left on the card; below 0 where the run does not fit.
    public var margin: Int { budget - perGPU.total }
    /// Within the tolerance of the plan: a card may find otherwise.
    public var isClose: Bool { abs(margin) < perGPU.total / Fit.tolerance }
  }

  /// Cards that would do.
  public struct Cards: Sendable {
    public var count: Int
    public var strategy: FitStrategy
    public var zeroStage: Int
  }

  public var path: String
  public var options: Fit
  public var sequence: Int
  /// Tokens that the model was made for; nil where the configuration does not say.
  public var positions: Int?
  public var parameters: Int
  /// The dtype as torch names it.
  public var type: String
  /// Linear layers with an adapter.
  public var targets: Int
  public var rows: [Row]
  /// The least cards of this size with which any strategy fits, those that need several among them.
  public var cards: Cards?
  public var hostMemory: Int
  public var disk: Int
  public var warnings: [Warning]
}

extension FitReport {
  /// The object that `--json` prints.
  public var json: String {
    JSONValue.object([
      "parameters": .number(parameters), "strategies": .array(rows.map(\.json)),
      "cardsNeeded": cards.map { .number($0.count) } ?? .null, "hostMemory": .number(hostMemory),
      "disk": .number(disk),
    ]).text(.indented)
  }

  /// A table, and what it means.
  public var text: String {
    let o = options
    var text =
      "\(counted(parameters, "parameter")), \(type); \(o.gpus == 1 ? "one GPU" : "\(o.gpus) GPUs") of \(cardText); on each batch "
      + "\(o.batch), sequence \(sequence);\nrank \(o.rank) on \(counted(targets, "linear layer")), "
      + "\(o.optimizer.rawValue), gradient checkpointing \(o.checkpointing ? "on" : "off")"
      + (o.zeroStage == 0 ? "" : ", ZeRO-\(o.zeroStage)") + "\n\n"
    let head = ["per GPU", "weights", "adapter", "gradients", "optimizer", "activations", "overhead", "total"]
    let cells = rows.map { row in
      let f = row.perGPU
      let bytes = [f.weights, f.adapter, f.gradients, f.optimizer, f.activations, f.overhead, f.total]
      return [row.strategy.rawValue] + bytes.map(byteText)
    }
    text += Table(head: head, rows: cells, right: Array(1..<head.count)).text + "\n"
    let findings = findings
    for (index, finding) in findings.enumerated() {
      let advice = advice(finding.row)
      // Where the next says the same, it says it.
      let isLast = index + 1 == findings.count || self.advice(findings[index + 1].row) != advice
      text += sentence(finding.row, of: finding.names) + (isLast ? advice.map { "; " + $0 } ?? "" : "") + "\n"
    }
    text += summary
    return text + "host memory \(byteText(hostMemory)), disk \(byteText(disk))\n"
  }

  /// `24 GiB`, or decimal where that is no whole number.
  private var cardText: String {
    let (whole, rest) = options.gpuBytes.quotientAndRemainder(dividingBy: 1 << 30)
    return rest == 0 ? "\(whole) GiB" : byteText(options.gpuBytes)
  }

  /// With its article.
  private var card: String {
    let isVowel = cardText.hasPrefix("8") || ["11", "18"].contains(cardText.prefix { $0.isNumber })
    return "\(isVowel ? "an" : "a") \(cardText) card"
  }

  /// Rows, and the strategies of which the same is to be said.
  private var findings: [(row: Row, names: [String])] {
    var found: [(row: Row, names: [String])] = []
    for row in rows {
      func isAlike(_ other: Row) -> Bool {
        sentence(other, of: [""]) == sentence(row, of: [""]) && advice(other) == advice(row)
      }
      if let place = found.firstIndex(where: { isAlike($0.row) }) {
        found[place].names.append(row.strategy.rawValue)
      } else {
        found.append((row, [row.strategy.rawValue]))
      }
    }
    return found
  }

  private func sentence(_ row: Row, of names: [String]) -> String {
    let name =
      names.count > 1 ? "\(names.dropLast().joined(separator: ", ")) and \(names[names.count - 1])" : names[0]
    let (fits, fitsNot) = names.count > 1 ? ("fit", "do not fit") : ("fits", "does not fit")
    if row.fits {
      return "\(name) \(row.isClose ? "just \(fits)" : fits) \(card), with \(byteText(row.margin)) to spare: "
        + "sequences up to \(limited(row.longestSequence)), or batches up to \(limited(row.largestBatch))"
    }
    guard row.isPromised else {
      return row.longestSequence == 0
        ? "\(name) \(fitsNot) \(card)" : "\(name) \(fits) \(card) with sequences up to \(row.longestSequence)"
    }
    let reason =
      row.perGPU.weights > row.budget
      ? "\(byteText(row.perGPU.weights)) of weights alone"
      : "\(byteText(row.perGPU.total)) needed, \(byteText(-row.margin)) too much"
    return "\(name) \(row.isClose ? "just \(fitsNot)" : fitsNot) \(card): \(reason)"
  }

  /// A suggestion that makes the run fit, the smallest change first; nil for one that fits.
  private func advice(_ row: Row) -> String? {
    guard !row.fits, row.isPromised else { return nil }
    if row.longestSequence > 0 {
      return "sequences up to \(row.longestSequence) fit"
        + (row.largestBatch > 0 ? ", or batches up to \(row.largestBatch)" : "")
    }
    if let other = rows.first(where: { $0.fits && $0.strategy != .full }) {
      return "\(other.strategy.rawValue) does, with \(byteText(other.margin)) to spare"
    }
    if let other = rows.max(by: { $0.longestSequence < $1.longestSequence }), other.longestSequence > 0 {
      return "\(other.strategy.rawValue) does with sequences up to \(other.longestSequence)"
    }
    guard let least = rows.min(by: { $0.perGPU.total < $1.perGPU.total }) else { return nil }
    return "no strategy does, \(least.strategy.rawValue) takes the least"
  }

  /// Advice that holds for all strategies: how many cards would do; how sure the close ones are.
  private var summary: String {
    var text = ""
    let isPromised = rows.allSatisfy(\.isPromised)
    if !options.checkpointing, !rows.contains(where: \.fits) { text += "gradient checkpointing takes less\n" }
    if isPromised {
      let needs = (rows.compactMap(\.cards) + [cards].compactMap { $0 }).filter { $0.count != options.gpus }
      var said: Set<FitStrategy> = []
      for need in needs where need.count > options.gpus || !rows.contains(where: \.fits) {
        guard said.insert(need.strategy).inserted else { continue }
        text += "\(need.strategy.rawValue)\(division(need)) takes \(count(need.count)) of \(cardText)\n"
      }
    }
    if rows.contains(where: { $0.isClose && $0.isPromised }) {
      text += "\"just\": within the \(100 / Fit.tolerance) % that a card may take more or less than is planned\n"
    }
    return text
  }

  private func count(_ number: Int) -> String { number == 1 ? "one card" : "\(number) cards" }

  private func division(_ need: Cards) -> String {
    need.zeroStage > options.zeroStage && need.count > 1 ? " with ZeRO-\(need.zeroStage)" : ""
  }

  private func limited(_ number: Int) -> String { number == Fit.searchLimit ? "\(number) and more" : "\(number)" }
}

extension FitReport.Row {
  package var json: JSONValue {
    .object([
      "name": .string(strategy.rawValue),
      "perGPU": .object([
        "weights": .number(perGPU.weights), "adapter": .number(perGPU.adapter),
        "gradients": .number(perGPU.gradients), "optimizer": .number(perGPU.optimizer),
        "activations": .number(perGPU.activations), "overhead": .number(perGPU.overhead),
        "total": .number(perGPU.total),
      ]),
      "budget": .number(budget), "fits": .bool(fits), "longestSequence": .number(longestSequence),
      "largestBatch": .number(largestBatch), "cardsNeeded": cards.map { .number($0.count) } ?? .null,
      "margin": .number(margin),
    ])
  }
}
