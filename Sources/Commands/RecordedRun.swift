package import Bytes
package import Checkpoints
import JSON
package import Writing

/// The run that the manifest of a checkpoint tells of, to be planned again from the same source.
package enum RecordedRun: Sendable {
  case quantize(Quantize)
  case quantizeToMLX(QuantizeToMLX)
  case quantizeToCompressedTensors(QuantizeToCompressedTensors)
  case quantizeToMXFP4(QuantizeToMXFP4)
  case quantizeToGGUF(QuantizeToGGUF)
  case convert(Convert)
  /// `split` and `join`: the same bytes.
  case copy(Reshard)

  /// - Returns: nil for a checkpoint without a manifest, and for one that was made from more than one source.
  package init?(_ record: SourceRecord) {
    guard let options = record.options else { return nil }
    switch record.operation {
    case "quantize":
      if let run = Quantize(recorded: options) {
        self = .quantize(run)
      } else if let run = QuantizeToMLX(recorded: options) {
        self = .quantizeToMLX(run)
      } else if let run = QuantizeToCompressedTensors(recorded: options) {
        self = .quantizeToCompressedTensors(run)
      } else if let run = QuantizeToMXFP4(recorded: options) {
        self = .quantizeToMXFP4(run)
      } else if let run = QuantizeToGGUF(recorded: options) {
        self = .quantizeToGGUF(run)
      } else {
        return nil
      }
    case "convert":
      guard let run = Convert(recorded: options) else { return nil }
      self = .convert(run)
    case "split", "join": self = .copy(Reshard(.join))
    default: return nil
    }
  }

  package var isCopy: Bool {
    if case .copy = self { true } else { false }
  }

  /// Every tensor that the run would write, from headers alone.
  ///
  /// - Parameter isGGUF: whether the checkpoint is in GGUF.
  /// - Throws: what the verb throws for such a source.
  package func plan(from files: CheckpointFiles, isGGUF: Bool) throws(Failure) -> WritePlan {
    switch self {
    case .quantize(let run): try run.prepare(StoredModel(files)).plan
    case .quantizeToMLX(let run): try run.prepare(StoredModel(files)).plan
    case .quantizeToCompressedTensors(let run): try run.prepare(StoredModel(files)).plan
    case .quantizeToMXFP4(let run): try run.prepare(StoredModel(files)).plan
    case .quantizeToGGUF(let run):
      try run.prepare(GGUFContents(files, isExact: true), nil, name: "again.gguf").plan
    case .convert(let run): try run.plan(from: files, asGGUF: isGGUF)
    case .copy(let run): try run.plan(from: files)
    }
  }
}
