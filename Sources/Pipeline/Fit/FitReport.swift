public import Bytes
import JSON

/// What `nibble fit` found.
public struct FitReport: Sendable {
  public struct Row: Sendable {
    public var strategy: FitStrategy
    public var perGPU: FitFootprint
    /// Memory of one GPU, in bytes.
    public var budget: Int
    /// Tokens that fit with the batch asked for; 0 when none does.
    public var longestSequence: Int
    /// Sequences that fit with the length asked for.
    public var largestBatch: Int

    public var fits: Bool { perGPU.total <= budget }
  }

  public var path: String
  public var options: Fit
  public var parameters: Int
  /// As torch names it.
  public var type: String
  /// Linear layers with an adapter.
  public var targets: Int
  public var rows: [Row]
  public var hostMemory: Int
  public var disk: Int
  public var warnings: [Warning]
}

extension FitReport {
  /// The object that `--json` prints.
  public var json: String {
    JSONValue.object([
      "parameters": .number(parameters), "strategies": .array(rows.map(\.json)), "hostMemory": .number(hostMemory),
      "disk": .number(disk),
    ]).text(.indented)
  }

  /// A table, and what it means.
  public var text: String {
    let o = options
    var text =
      "\(parameters) parameters, \(type); \(o.gpus == 1 ? "one GPU" : "\(o.gpus) GPUs") of \(cardText); on each batch "
      + "\(o.batch), sequence \(o.sequenceLength);\nrank \(o.rank) on \(targets) linear layers, "
      + "\(o.optimizer.rawValue), gradient checkpointing \(o.checkpointing ? "on" : "off")"
      + (o.zeroStage == 0 ? "" : ", ZeRO-\(o.zeroStage)") + "\n\n"
    let head = ["per GPU", "weights", "adapter", "gradients", "optimizer", "activations", "overhead", "total"]
    let cells = rows.map { row in
      let f = row.perGPU
      let bytes = [f.weights, f.adapter, f.gradients, f.optimizer, f.activations, f.overhead, f.total]
      return [row.strategy.rawValue] + bytes.map(byteText)
    }
    text += Table(head: head, rows: cells, right: Array(1..<head.count)).text + "\n"
    for row in rows { text += sentence(row) + "\n" }
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

  private func sentence(_ row: Row) -> String {
    let name = row.strategy.rawValue
    if row.fits {
      return "\(name) fits \(card), with \(byteText(row.budget - row.perGPU.total)) to spare: "
        + "sequences up to \(limited(row.longestSequence)), or batches up to \(limited(row.largestBatch))"
    }
    let reason =
      row.perGPU.weights > row.budget
      ? "\(byteText(row.perGPU.weights)) of weights alone"
      : "\(byteText(row.perGPU.total)) needed, \(byteText(row.perGPU.total - row.budget)) too much"
    return "\(name) does not fit \(card): \(reason); \(advice(row))"
  }

  /// What to change, the least first.
  private func advice(_ row: Row) -> String {
    if row.longestSequence > 0 {
      return "sequences up to \(row.longestSequence) fit"
        + (row.largestBatch > 0 ? ", or batches up to \(row.largestBatch)" : "")
    }
    if let other = rows.first(where: { $0.fits && $0.strategy != .full }) {
      return "\(other.strategy.rawValue) does, with \(byteText(other.budget - other.perGPU.total)) to spare"
    }
    if let other = rows.max(by: { $0.longestSequence < $1.longestSequence }), other.longestSequence > 0 {
      return "\(other.strategy.rawValue) does with sequences up to \(other.longestSequence)"
    }
    guard let least = rows.min(by: { $0.perGPU.total < $1.perGPU.total }) else { return "nothing fits" }
    let hint = options.checkpointing ? "" : "; gradient checkpointing takes less"
    return "no strategy does, \(least.strategy.rawValue) takes the least: \(byteText(least.perGPU.total))\(hint)"
  }

  private func limited(_ number: Int) -> String { number == Fit.searchLimit ? "\(number) and more" : "\(number)" }
}

extension FitReport.Row {
  var json: JSONValue {
    .object([
      "name": .string(strategy.rawValue),
      "perGPU": .object([
        "weights": .number(perGPU.weights), "adapter": .number(perGPU.adapter),
        "gradients": .number(perGPU.gradients), "optimizer": .number(perGPU.optimizer),
        "activations": .number(perGPU.activations), "overhead": .number(perGPU.overhead),
        "total": .number(perGPU.total),
      ]),
      "budget": .number(budget), "fits": .bool(fits), "longestSequence": .number(longestSequence),
      "largestBatch": .number(largestBatch),
    ])
  }
}
