public import Bytes
public import Console
import JSON

/// The options of every verb that writes a checkpoint.
public struct RunOptions: Sendable {
  /// Workers; what is written does not depend on it.
  public var jobs = processorCount()
  /// Replace a checkpoint that is already there.
  public var force = false
  /// Plan and report, read no weights and write nothing.
  public var isDryRun = false
  /// Digests of every file that also reveal forgery, in the manifest.
  public var sha256 = false
  /// Bytes of tensor data per shard.
  public var maxShardBytes = 5_000_000_000
  /// The directory of the source's configuration and tokenizer, where they are not beside its weights.
  public var config: String?
  public var progress = Progress.Style.automatic

  public init() {}
}

/// The results of a run, or of a dry run the expected ones.
public struct RunReport: Sendable {
  public var output: String
  public var files: [String]
  /// Physical tensors written.
  public var tensors: Int
  /// Logical parameters.
  public var parameters: Int
  /// Bytes of tensor data read, as it lies in files, and of the shards written, which a dry run knows too.
  public var bytesIn: Int
  public var bytesOut: Int
  public var seconds: Double
  public var warnings: [Warning]
  /// The adapters' changes, in the order of the tensors; nil for a run without adapters.
  public var changes: [MergeChange]?
  /// The summary of the quantization; nil for a run that does not quantize.
  public var summary: QuantizationSummary?
  /// The adapter that was written beside the model; nil for none.
  public var adapter: AdapterReport?

  /// The object that `--json` prints.
  public var json: String {
    var object = JSONValue.object([
      "output": .string(output), "files": .array(files.map(JSONValue.string)), "tensors": .number(tensors),
      "parameters": .number(parameters), "bytesIn": .number(bytesIn), "bytesOut": .number(bytesOut),
      "seconds": JSONNumber((seconds * 1000).rounded() / 1000).map(JSONValue.number) ?? 0,
      "warnings": .array(warnings.map(\.json)),
    ])
    if let changes {
      object["changes"] = .array(
        changes.map { change in
          [
            "tensor": .string(change.tensor), "adapter": .string(change.adapter),
            "scale": change.scale.flatMap { JSONNumber($0) }.map(JSONValue.number) ?? .null,
            "relativeChange": change.relativeChange.flatMap { JSONNumber($0) }.map(JSONValue.number) ?? .null,
          ]
        })
    }
    if let adapter { object["loftq"] = adapter.json }
    return object.text(.indented)
  }
}
