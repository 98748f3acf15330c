package import Bytes
package import Calibration
import Checkpoints
import Console
package import Tensors
import Writing

/// The factors of a model's inputs, as `nibble.calibrate --hessian` has measured them.
package final class MeasuredFactors: InputFactors, ColumnMeans {
  package let file: InputFile
  package let statistics: InputStatistics
  private let settings: FactorSettings
  /// The last one: weights that share an input follow each other.
  private let last = Monitor<(input: String, blocks: [Int], factor: InverseFactor)?>(nil)

  package init(path: String, settings: FactorSettings = FactorSettings()) throws(Failure) {
    self.settings = settings
    file = try InputFile(path: path, name: FileName.last(of: path))
    statistics = try InputStatistics(file)
  }

  package func hasFactor(for weight: TensorInfo) -> Bool { statistics.hasCorrelations(for: weight.name.string) }

  package func means(for weight: TensorInfo) throws(Failure) -> [Float]? {
    try weight.shape.last.flatMap { columns throws(Failure) in
      try statistics.means(for: weight.name.string, columns: columns)
    }
  }

  package func factor(for weight: TensorInfo, blocks: [Int]) throws(Failure) -> InverseFactor? {
    guard let columns = weight.shape.last else { return nil }
    let name = weight.name.string
    guard let input = statistics.input(of: name) else { return nil }
    if let last = last.withLock({ $0 }), last.input == input, last.blocks == blocks,
      last.factor.columns == columns
    {
      return last.factor
    }
    guard statistics.hasCorrelations(for: name) else { return nil }
    try statistics.checkCorrelations(for: name, columns: columns)
    // One is as large as the weight's columns squared: the last goes before the next is made.
    last.withLock { $0 = nil }
    do throws(Failure) {
      let means = try statistics.means(for: name, columns: columns) ?? []
      let order = settings.order.columns(means, blocks: blocks)
      let factor = try InverseFactor(columns: columns, order: order, damping: Float(settings.damping)) {
        () throws(Failure) in
        try statistics.correlations(for: name, columns: columns, order: order) ?? []
      }
      last.withLock { $0 = (input, blocks, factor) }
      return factor
    } catch { throw error.located(file: file.name, tensor: input) }
  }

  /// Which of some weights were measured, and in which no error is made good all the same.
  ///
  /// - Parameter reason: why not in those.
  /// - Throws: `malformed` when none was: the file is another model's, or has no correlations.
  package func coverage(
    of weights: [TensorInfo], where reason: String = "whose rows end inside a block", canFeedBack: (TensorInfo) -> Bool
  ) throws(Failure) -> [Warning] {
    let missing = weights.filter { !hasFactor(for: $0) }
    for weight in weights where hasFactor(for: weight) {
      try statistics.checkCorrelations(for: weight.name.string, columns: weight.shape.last ?? 0)
    }
    guard weights.isEmpty || missing.count < weights.count else {
      throw Failure(
        .malformed,
        "has no correlations of the weights to be quantized: it is another model's, or was made without --hessian",
        file: file.name)
    }
    guard weights.isEmpty || weights.contains(where: { hasFactor(for: $0) && canFeedBack($0) }) else {
      throw Failure(
        .unsupported,
        "is of no use here: no error is made good in weights \(reason), and all that it has measured are of that kind",
        file: file.name)
    }
    var warnings: [Warning] = []
    let few = weights.filter { weight in
      guard let tokens = statistics.tokenCount(for: weight.name.string), let columns = weight.shape.last else {
        return false
      }
      return hasFactor(for: weight) && tokens < Float(columns)
    }
    if !few.isEmpty {
      warnings.append(
        "'\(file.name.printable())' was measured on fewer tokens than \(counted(few.count, "weight")) \(few.count == 1 ? "has" : "have") columns, which may "
          + "lose more than it saves on other text: \(names: few.map(\.name.string))")
    }
    if !missing.isEmpty {
      warnings.append(
        "'\(file.name.printable())' has no correlations for \(counted(missing.count, "weight")), whose errors are not made "
          + "good: \(names: missing.map(\.name.string))")
    }
    let uneven = weights.filter { !canFeedBack($0) }
    if !uneven.isEmpty {
      warnings.append(
        "errors are not made good in \(counted(uneven.count, "weight")) \(reason): "
          + "\(names: uneven.map(\.name.string))")
    }
    return warnings
  }
}
