import Adapters
import Bytes
import Checkpoints
import Console
import JSON

/// The summary of an adapter's configuration, for `inspect`.
package struct AdapterSummary: Sendable {
  private let configuration: AdapterConfiguration

  /// nil when the checkpoint is not that of an adapter.
  ///
  /// - Throws: what reading the configuration throws; an adapter that cannot be merged is `unsupported`.
  init?(_ checkpoint: any StoredCheckpoint) throws(Failure) {
    if let planned = checkpoint.files.planned {
      guard let config = planned.adapterConfig else { return nil }
      configuration = try AdapterConfiguration(parsing: config.bytes(.compact), file: Adapter.configName)
      return
    }
    guard let directory = checkpoint.directory, directory.contains(Adapter.configName) else { return nil }
    let bytes = try directory.open(Adapter.configName).contents(limit: AdapterConfiguration.sizeLimit)
    configuration = try AdapterConfiguration(parsing: bytes, file: Adapter.configName)
  }

  private var kinds: [String] {
    let flags = [
      ("rank-stabilized", configuration.usesRSLoRA), ("DoRA", configuration.usesDoRA),
      ("with biases", configuration.hasLoRABias), ("weights [in, out]", configuration.isTransposed),
    ]
    return flags.filter(\.1).map(\.0)
  }

  private var targets: [String] { configuration.targetModules + configuration.targetParameters }

  var text: String {
    var text = (["LoRA, rank \(configuration.rank), alpha \(shortNumber(configuration.alpha))"] + kinds)
      .joined(separator: ", ")
    if !targets.isEmpty { text += ", on " + targets.prefix(12).map { $0.printable(limit: 80) }.joined(separator: " ") }
    if targets.count > 12 { text += " and \(targets.count - 12) more" }
    return text + "\n"
  }

  var json: JSONValue {
    [
      "type": "LORA", "rank": .number(configuration.rank),
      "alpha": JSONNumber(configuration.alpha).map(JSONValue.number) ?? .null,
      "rankStabilized": .bool(configuration.usesRSLoRA), "dora": .bool(configuration.usesDoRA),
      "targetModules": .array(configuration.targetModules.map(JSONValue.string)),
      "targetParameters": .array(configuration.targetParameters.map(JSONValue.string)),
      "modulesToSave": .array(configuration.modulesToSave.map(JSONValue.string)),
    ]
  }
}
