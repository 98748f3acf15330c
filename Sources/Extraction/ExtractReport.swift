public import Bytes
import Console
import JSON
import Writing

/// The results of `extract-lora`, or for a dry run the modules that it would read.
public struct ExtractReport: Sendable {
  /// The energy and rank of one module's factors.
  public struct Module: Sendable {
    public var module: String
    /// The number of the factors' rows that are not zero.
    public var rank: Int
    /// ‖D - B·A‖² and ‖D‖² of the difference D, with the factors as they are stored, and ‖W‖² of the base.
    public var residual: Double
    public var change: Double
    public var base: Double
    /// All singular values, largest first.
    public var singularValues: [Float]

    /// 1 - ‖D - B·A‖² / ‖D‖².
    public var energy: Double { ExtractReport.energy(residual, change) }
    /// ‖D‖ / ‖W‖; nil for a base of zeros.
    public var relativeChange: Double? { base > 0 ? (change / base).squareRoot() : nil }
  }

  /// A tensor that differs and has no factors.
  public struct Tensor: Sendable {
    public var tensor: String
    public var relativeChange: Double?
    /// Why it is not in the adapter; empty for one that is there whole.
    public var reason = ""
  }

  public var output: String
  public var files: [String]
  public var rank: Int
  public var modules: [Module]
  /// Modules that a dry run would read.
  public var candidates: [String] = []
  public var saved: [Tensor]
  public var notCaptured: [Tensor]
  public var bytesOut: Int
  public var seconds: Double
  public var warnings: [Warning]

  /// The energy over all modules together; nil when none was computed.
  public var energy: Double? {
    if modules.isEmpty { return nil }
    return Self.energy(modules.reduce(0) { $0 + $1.residual }, modules.reduce(0) { $0 + $1.change })
  }

  /// ‖D‖ / ‖W‖ over all modules together.
  public var relativeChange: Double? {
    let base = modules.reduce(0) { $0 + $1.base }
    return base > 0 ? (modules.reduce(0) { $0 + $1.change } / base).squareRoot() : nil
  }

  /// 1 - residual / change; 1 when nothing changed.
  private static func energy(_ residual: Double, _ change: Double) -> Double {
    change > 0 ? 1 - residual / change : 1
  }

  /// How many singular values of a module are told.
  private static let shownValues = 8

  /// The object that `--json` prints.
  public var json: String {
    let planned = candidates.map { name -> JSONValue in
      ["module": .string(name), "rank": nil, "energy": nil, "relativeChange": nil, "singularValues": []]
    }
    let computed = modules.map { module -> JSONValue in
      [
        "module": .string(module.module), "rank": .number(module.rank), "energy": Self.number(module.energy),
        "relativeChange": Self.number(module.relativeChange),
        "singularValues": .array(module.singularValues.prefix(Self.shownValues).map { Self.number(Double($0)) }),
      ]
    }
    let object: JSONValue = [
      "output": .string(output), "files": .array(files.map(JSONValue.string)), "rank": .number(rank),
      "modules": .array(planned + computed), "energy": Self.number(energy),
      "relativeChange": Self.number(relativeChange),
      "saved": .array(
        saved.map { ["tensor": .string($0.tensor), "relativeChange": Self.number($0.relativeChange)] }),
      "notCaptured": .array(
        notCaptured.map {
          [
            "tensor": .string($0.tensor), "relativeChange": Self.number($0.relativeChange),
            "reason": .string($0.reason),
          ]
        }), "bytesOut": .number(bytesOut), "warnings": .array(warnings.map(\.json)),
      "seconds": Self.number((seconds * 1000).rounded() / 1000),
    ]
    return object.text(.indented)
  }

  private static func number(_ value: Double?) -> JSONValue {
    value.flatMap { JSONNumber($0) }.map(JSONValue.number) ?? .null
  }

  /// A table of the modules, and what they capture together.
  public var text: String {
    if modules.isEmpty { return "" }
    let rows = modules.map { module in
      [
        module.module.printable(limit: 512), "\(module.rank)", Self.percent(module.energy),
        module.relativeChange.map(Self.percent) ?? "-",
      ]
    }
    return Table(head: ["module", "rank", "energy", "change"], rows: rows, right: [1, 2, 3]).text
      + "\(counted(modules.count, "module")): rank \(rank) holds \(Self.percent(energy ?? 1)) of the change's energy, "
      + "the change is \(relativeChange.map(Self.percent) ?? "-") of the weights\n"
  }

  /// `99.9987 %`, rounded down where it would round to the whole.
  private static func percent(_ value: Double) -> String {
    guard value.isFinite, value.magnitude < 1e9 else { return "-" }
    var units = Int((value * 1_000_000).rounded())
    if value < 1, units == 1_000_000 { units -= 1 }
    let fraction = String(units.magnitude % 10_000)
    let whole = (units < 0 ? "-" : "") + String(units.magnitude / 10_000)
    return "\(whole).\(String(repeating: "0", count: 4 - fraction.count))\(fraction) %"
  }
}
