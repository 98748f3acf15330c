package import Bytes
package import Calibration
import Checkpoints
import Console
package import Tensors
import Writing

/// The factors of a model's inputs, as `nibble.calibrate --hessian` has measured them.
package final class MeasuredFactors: InputFactors {
  package let file: InputFile
  private let statistics: InputStatistics
  /// The last one: weights that share an input follow each other.
  private let last = Monitor<(input: String, factor: InverseFactor)?>(nil)

  package init(path: String) throws(Failure) {
    file = try InputFile(path: path, name: FileName.last(of: path))
    statistics = try InputStatistics(file)
  }

  package func factor(for weight: TensorInfo) throws(Failure) -> InverseFactor? {
    guard let columns = weight.shape.last else { return nil }
    let name = weight.name.string
    guard let input = statistics.input(of: name) else { return nil }
    if let last = last.withLock({ $0 }), last.input == input { return last.factor }
    guard let values = try statistics.correlations(for: name, columns: columns) else { return nil }
    do throws(Failure) {
      let factor = try InverseFactor(values, columns: columns)
      last.withLock { $0 = (input, factor) }
      return factor
    } catch { throw error.located(file: file.name, tensor: input) }
  }
}
