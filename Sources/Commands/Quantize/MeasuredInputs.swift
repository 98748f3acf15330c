import Adapters
import Bytes
import Calibration
import Checkpoints
import JSON
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
    if quantize.feedback != nil, !quantize.usesDoubleQuantization {
      throw Failure(.usage, "options '--feedback' and '--no-double-quant' exclude each other")
    }
    try self.init(
      quantize.scaleSearch, importance: quantize.importance, feedback: quantize.feedback, quantize.factors,
      isRepaired: quantize.loftqRank != nil, for: model)
  }

  /// - Parameters:
  ///   - importance: the path of a file, as `feedback`.
  ///   - isRepaired: whether there is an adapter that importance may weigh where there is no search.
  /// - Throws: `usage` for importance without a search, `missing` and `malformed` for the files.
  init(
    _ kind: ScaleSearch.Kind?, importance: String?, feedback: String?, _ settings: FactorSettings,
    isRepaired: Bool = false, for model: StoredModel
  ) throws(Failure) {
    if importance != nil, kind == nil, !isRepaired {
      throw Failure(.usage, "option '--importance' weighs what '--scale-search' searches: name that, too")
    }
    factors = try feedback.map { path throws(Failure) in try MeasuredFactors(path: path, settings: settings) }
    self.importance = try importance.map { path throws(Failure) in try ColumnImportance(path: path, for: model) }
    var origins: [Warning] = []
    for statistics in [self.importance?.statistics, factors?.statistics].compactMap(\.self) {
      if let warning = try model.originWarning(of: statistics) { origins.append(warning) }
    }
    self.origins = origins
    search =
      kind == nil && factors == nil
      ? nil : ScaleSearch(kind, importance: kind == nil ? nil : self.importance, feedback: factors)
  }

  /// What the squared errors in each column of a weight count; nil for all alike.
  func means(for weight: TensorInfo) throws(Failure) -> [Float]? {
    if let importance { return try importance.means(for: weight) }
    return try factors?.means(for: weight)
  }

  var files: [InputFile] { [importance?.file, factors?.file].compactMap(\.self) }

  /// - Throws: `malformed` for files of another model.
  func warnings(for weights: [TensorInfo], _ scheme: FourBitScheme) throws(Failure) -> [Warning] {
    try warnings(for: weights, canFeedBack: FourBitEncoder(scheme: scheme, search: search).canFeedBack)
  }

  func warnings(for weights: [TensorInfo], canFeedBack: (TensorInfo) -> Bool) throws(Failure) -> [Warning] {
    if let factors, importance != nil, !weights.isEmpty,
      weights.allSatisfy({ factors.hasFactor(for: $0) && canFeedBack($0) })
    {
      throw Failure(
        .usage, "option '--importance' has no effect: every weight has its errors made good, by their correlations")
    }
    return try origins + (importance?.coverage(of: weights) ?? [])
      + (factors?.coverage(of: weights, canFeedBack: canFeedBack) ?? [])
  }

  /// What an error in each column of a weight counts, by the best that was measured of its inputs.
  func metric(for weight: TensorInfo) throws(Failure) -> ColumnMetric {
    if let factor = try factors?.factor(for: weight, blocks: []) { return .inverseFactor(factor.values) }
    guard let means = try importance?.means(for: weight) else { return .alike }
    let sum = means.reduce(0.0) { $0 + Double($1) }
    guard sum > 0, sum.isFinite else { return .alike }
    // As much as correlations get, so that columns which no input reached count for something.
    let least = Self.damping * sum / Double(means.count)
    return .diagonal(means.map { Float(Double($0) + least) })
  }

  private static let damping = 0.01
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

extension FactorSettings {
  /// For the manifest of a run with feedback.
  var recorded: [(key: String, value: JSONValue)] {
    [
      ("feedbackOrder", .string(order.rawValue)), ("damping", JSONNumber(damping).map(JSONValue.number) ?? .null),
    ]
  }

  /// - Returns: nil for an order that is not known.
  init?(recorded options: JSONValue) {
    self.init()
    if let name = options["feedbackOrder"]?.string {
      guard let order = ColumnOrder(rawValue: name) else { return nil }
      self.order = order
    }
    if let number = options["damping"]?.double { damping = number }
  }
}
