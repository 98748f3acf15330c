import Bytes
import Calibration
import Checkpoints
import Tensors
import Writing

/// What decides about scales and codes besides the weights: how they are searched, and files of measured inputs.
struct MeasuredInputs {
  let search: ScaleSearch?
  private let importance: ColumnImportance?
  private let factors: MeasuredFactors?
  private let origins: [Warning]

  /// - Throws: `usage` for options that do not go together, `missing` and `malformed` for the files.
  init(_ quantize: Quantize, for model: StoredModel) throws(Failure) {
    if quantize.importance != nil, quantize.scaleSearch == nil {
      throw Failure(.usage, "option '--importance' weighs what '--scale-search' searches: name that, too")
    }
    if quantize.feedback != nil, !quantize.usesDoubleQuantization {
      throw Failure(.usage, "options '--feedback' and '--no-double-quant' exclude each other")
    }
    factors = try quantize.feedback.map { path throws(Failure) in try MeasuredFactors(path: path) }
    importance = try quantize.importance.map { path throws(Failure) in try ColumnImportance(path: path, for: model) }
    var origins: [Warning] = []
    for statistics in [importance?.statistics, factors?.statistics].compactMap(\.self) {
      if let warning = try model.originWarning(of: statistics) { origins.append(warning) }
    }
    self.origins = origins
    search =
      quantize.scaleSearch == nil && factors == nil
      ? nil : ScaleSearch(quantize.scaleSearch, importance: importance, feedback: factors)
  }

  /// What the squared errors in each column of a weight count; nil for all alike.
  func means(for weight: TensorInfo) throws(Failure) -> [Float]? {
    if let importance { return try importance.means(for: weight) }
    return try factors?.means(for: weight)
  }

  var files: [InputFile] { [importance?.file, factors?.file].compactMap(\.self) }

  /// - Throws: `malformed` for files of another model.
  func warnings(for weights: [TensorInfo], _ scheme: FourBitScheme) throws(Failure) -> [Warning] {
    let encoder = FourBitEncoder(scheme: scheme, search: search)
    return try origins + (importance?.coverage(of: weights) ?? [])
      + (factors?.coverage(of: weights, canFeedBack: encoder.canFeedBack) ?? [])
  }
}

extension StoredModel {
  /// A warning where statistics say that another model was measured, which may have the same names and shapes.
  fileprivate func originWarning(of statistics: InputStatistics) throws(Failure) -> Warning? {
    guard let measured = statistics.model, let directory = checkpoint.directory, directory.contains(Self.configName)
    else { return nil }
    let config = try directory.open(Self.configName).contents(limit: Self.configLimit)
    var hasher = SHA256Hasher()
    hasher.update(config.span.rawBytes)
    guard hasher.finish() != measured else { return nil }
    return "'\(statistics.fileName.printable())' was measured on a model of another \(Self.configName)"
  }
}
