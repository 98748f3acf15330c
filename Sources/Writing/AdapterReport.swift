import Bytes
import Console
import JSON

/// What a run says of the adapter that it wrote beside a model, which makes good what quantization lost.
public struct AdapterReport: Sendable {
  /// The factors of one module.
  public struct Module: Sendable {
    public var module: String
    /// The factors' rows that are not zero.
    public var rank: Int
    /// The part of the squared error that the factors make good, each column counting as it was weighed; nil in a dry
    /// run, and where there is no error.
    public var repaired: Double?

    package init(module: String, rank: Int, repaired: Double?) {
      self.module = module
      self.rank = rank
      self.repaired = repaired
    }
  }

  public var output: String
  public var files: [String]
  public var rank: Int
  public var modules: [Module]
  public var bytesOut: Int
  public var seconds: Double

  package init(output: String, files: [String], rank: Int, modules: [Module], bytesOut: Int, seconds: Double) {
    self.output = output
    self.files = files
    self.rank = rank
    self.modules = modules
    self.bytesOut = bytesOut
    self.seconds = seconds
  }

  /// The mean over the modules.
  public var repaired: Double? {
    let known = modules.compactMap(\.repaired)
    return known.isEmpty ? nil : known.reduce(0, +) / Double(known.count)
  }

  var json: JSONValue {
    [
      "output": .string(output), "files": .array(files.map(JSONValue.string)), "rank": .number(rank),
      "repaired": Self.number(repaired),
      "modules": .array(
        modules.map {
          ["module": .string($0.module), "rank": .number($0.rank), "repaired": Self.number($0.repaired)]
        }),
      "bytesOut": .number(bytesOut), "seconds": Self.number((seconds * 1000).rounded() / 1000),
    ]
  }

  private static func number(_ value: Double?) -> JSONValue {
    value.flatMap { JSONNumber($0) }.map(JSONValue.number) ?? .null
  }

  /// One line.
  public func text(isDryRun: Bool) -> String {
    var text = isDryRun ? "would write \(output.printable())" : "wrote \(output.printable())"
    text += ": \(counted(files.count, "file")), factors of rank \(rank) for \(counted(modules.count, "module"))"
    if let repaired {
      text += ", which make good \((repaired * 10_000).rounded() / 100) % of a module's squared error on average"
    }
    return text + "; \(byteText(bytesOut)) out"
      + (isDryRun || seconds == 0 ? "" : ", \((seconds * 100).rounded() / 100) s") + "\n"
  }
}
