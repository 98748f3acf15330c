import Bytes
import Calibration
import Checkpoints
package import JSON
import Quantization
import Writing

extension Quantize {
  /// The run that a manifest tells of.
  ///
  /// - Returns: nil for options that are not those of this verb.
  package init?(recorded options: JSONValue) {
    guard let code = options["scheme"]?.string.flatMap(Code.init), let blockSize = options["blockSize"]?.int,
      let usesDoubleQuantization = options["doubleQuantization"]?.bool,
      let storage = options["quantStorage"]?.string.flatMap(Storage.init),
      let computeType = options["computeDtype"]?.string.flatMap(FloatType.init(torchName:)),
      let target = options["target"]?.string.flatMap(Target.init), let keep = options["keep"]?.array
    else { return nil }
    self.init()
    if let name = options["scaleSearch"]?.string {
      guard let kind = ScaleSearch.Kind(rawValue: name) else { return nil }
      scaleSearch = kind
    }
    // Without a search it weighed an adapter beside the output.
    importance = scaleSearch == nil ? nil : options["importance"]?.string
    feedback = options["feedback"]?.string
    guard let factors = FactorSettings(recorded: options) else { return nil }
    self.factors = factors
    loftqRank = options["loftqRank"]?.int
    keptForBits = (options["keptForTargetBits"]?.array ?? []).compactMap(\.string)
    self.code = code
    self.blockSize = blockSize
    self.usesDoubleQuantization = usesDoubleQuantization
    self.storage = storage
    self.computeType = computeType
    self.target = target
    self.keep = keep.compactMap(\.string)
    forcesRequantization = true
  }

  /// What the manifest is to tell of the run.
  func recorded(_ choice: TargetBits.Choice?) -> [(key: String, value: JSONValue)] {
    [
      ("scheme", .string(code.rawValue)), ("blockSize", .number(blockSize)),
      ("doubleQuantization", .bool(usesDoubleQuantization)), ("quantStorage", .string(storage.rawValue)),
      ("computeDtype", .string(computeType.torchName)), ("target", .string(target.rawValue)),
      ("keep", .array(keep.map(JSONValue.string))), ("maxShardSize", .number(run.maxShardBytes)),
    ] + (scaleSearch.map { [("scaleSearch", .string($0.rawValue))] } ?? [])
      + (importance.map { [("importance", .string(FileName.last(of: $0)))] } ?? [])
      + (feedback.map { [("feedback", .string(FileName.last(of: $0)))] + factors.recorded } ?? [])
      + (loftqRank.map { [("loftqRank", .number($0))] } ?? [])
      + (choice.map { choice in
        [
          ("targetBits", JSONNumber(choice.summary.target).map(JSONValue.number) ?? .null),
          ("keptForTargetBits", .array(choice.modules.map(JSONValue.string))),
        ]
      } ?? [])
  }
}
