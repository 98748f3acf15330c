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

  /// The files of measured inputs that decided too, by the option that names each: only their names are recorded.
  package var measured: [(option: String, name: String)] {
    let (importance, feedback): (String?, String?) =
      switch self {
      case .quantize(let run): (run.importance, run.feedback)
      case .quantizeToCompressedTensors(let run): (run.importance, run.feedback)
      case .quantizeToGGUF(let run): (run.importance, run.feedback)
      default: (nil, nil)
      }
    return [("--importance", importance), ("--feedback", feedback)].compactMap { option, name in
      name.map { (option, $0) }
    }
  }

  /// The same run with these files in the place of those that are recorded.
  package func measured(importance: String?, feedback: String?) -> RecordedRun {
    switch self {
    case .quantize(var run):
      run.importance = run.importance.flatMap { _ in importance }
      run.feedback = run.feedback.flatMap { _ in feedback }
      return .quantize(run)
    case .quantizeToCompressedTensors(var run):
      run.importance = run.importance.flatMap { _ in importance }
      run.feedback = run.feedback.flatMap { _ in feedback }
      return .quantizeToCompressedTensors(run)
    case .quantizeToGGUF(var run):
      run.importance = run.importance.flatMap { _ in importance }
      run.feedback = run.feedback.flatMap { _ in feedback }
      return .quantizeToGGUF(run)
    default: return self
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
      try run.prepare(from: files)
    case .convert(let run): try run.plan(from: files, asGGUF: isGGUF)
    case .copy(let run): try run.plan(from: files)
    }
  }
}
