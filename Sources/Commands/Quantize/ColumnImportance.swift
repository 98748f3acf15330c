package import Bytes
import Calibration
package import Checkpoints
import JSON
import ModelFamilies
package import Tensors
import TypeMixtures
import Writing

/// How much each column of a model's weights matters, by what was measured: `llama-imatrix`'s file in either form, or
/// that of `nibble.calibrate`.
package struct ColumnImportance: ColumnMeans {
  private enum Content: Sendable {
    case statistics(InputStatistics)
    /// With the names that the weights have in GGUF.
    case matrix(ImportanceMatrix, names: [TensorName: GGUFName])
  }

  private struct GGUFName: Sendable {
    var name: String
    var expert = 0
    var experts = 1
  }

  package let file: InputFile
  private let content: Content

  /// - Throws: `unsupported` for an importance matrix where the model's class has no names in GGUF.
  package init(path: String, for model: StoredModel) throws(Failure) {
    file = try InputFile(path: path, name: FileName.last(of: path))
    if InputStatistics.isLikely(file) {
      content = .statistics(try InputStatistics(file))
    } else {
      let matrix = try Self.matrix(file)
      content = .matrix(matrix, names: try Self.names(of: model, file: file.name))
    }
  }

  private static func matrix(_ file: InputFile) throws(Failure) -> ImportanceMatrix {
    do throws(Failure) { return try ImportanceMatrix(file) } catch {
      if error.code == .io { throw error }
      var failure = error
      failure.message = "is neither of llama-imatrix nor of nibble.calibrate: \(error.message)"
      throw failure
    }
  }

  private static func names(of model: StoredModel, file: String) throws(Failure) -> [TensorName: GGUFName] {
    guard var config = model.config else {
      throw Failure(
        .missing,
        "has no \(StoredModel.configName), which tells the names that '\(file)' has for its weights (--config)",
        file: model.checkpoint.path)
    }
    config["quantization_config"] = nil
    let tensors = DequantizedSource(model.logical).tensors
    do throws(Failure) {
      let plan = try planGGUF(config: config, tensors: tensors, directoryName: "") { _ in nil }
      var names: [TensorName: GGUFName] = [:]
      for weight in plan.weights {
        switch weight.source {
        case .stored(let index): names[tensors[index].name] = GGUFName(name: weight.name.string)
        case .stacked(let indices):
          for (expert, index) in indices.enumerated() {
            names[tensors[index].name] = GGUFName(name: weight.name.string, expert: expert, experts: indices.count)
          }
        case .values, .part: break
        }
      }
      return names
    } catch {
      throw Failure(
        .unsupported,
        "has the names of GGUF, which are not known for this model (\(error.message)); nibble.calibrate measures by its "
          + "own names", file: file)
    }
  }

  /// The file of nibble.calibrate; nil for an importance matrix.
  var statistics: InputStatistics? {
    if case .statistics(let statistics) = content { statistics } else { nil }
  }

  package func means(for weight: TensorInfo) throws(Failure) -> [Float]? {
    guard let columns = weight.shape.last else { return nil }
    switch content {
    case .statistics(let statistics): return try statistics.means(for: weight.name.string, columns: columns)
    case .matrix(let matrix, let names):
      guard let name = names[weight.name] else { return nil }
      let all = try matrix.weights(for: name.name, columns: columns, experts: name.experts)
      return all.map { Array($0[name.expert * columns..<(name.expert + 1) * columns]) }
    }
  }

  /// Which of some weights were measured.
  ///
  /// - Throws: `malformed` when none was: the file is another model's.
  package func coverage(of weights: [TensorInfo]) throws(Failure) -> [Warning] {
    var missing: [String] = []
    for weight in weights {
      if try means(for: weight)?.contains(where: { $0 > 0 }) != true { missing.append(weight.name.string) }
    }
    if missing.isEmpty { return [] }
    if missing.count == weights.count {
      throw Failure(
        .malformed, "has measured none of the weights to be quantized: it is another model's", file: file.name)
    }
    return [
      "'\(file.name.printable())' has not measured \(counted(missing.count, "weight")), whose columns count alike: "
        + "\(names: missing)"
    ]
  }
}
