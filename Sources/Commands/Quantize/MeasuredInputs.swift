import Bytes
import Checkpoints
import Tensors
import Writing

/// What decides about scales and codes besides the weights: how they are searched, and files of measured inputs.
struct MeasuredInputs {
  let search: ScaleSearch?
  private let importance: ColumnImportance?
  private let factors: MeasuredFactors?

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
    return try (importance?.coverage(of: weights) ?? [])
      + (factors?.coverage(of: weights, canFeedBack: encoder.canFeedBack) ?? [])
  }
}
