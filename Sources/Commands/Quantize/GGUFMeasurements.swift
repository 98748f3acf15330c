package import Bytes
package import Calibration
import Checkpoints
package import GGUF
import Tensors
import TypeMixtures
package import Writing

/// What was measured of a model's inputs, for its tensors under their names in GGUF.
package struct GGUFMeasurements: Sendable {
  let matrix: ImportanceMatrix?
  private let factors: MeasuredFactors?
  /// The names that the weights have where they were measured.
  private let names: [TensorName: TensorName]
  package let files: [InputFile]

  private static let embedding = TensorName("token_embd.weight")

  /// Far beyond any mean of squares that was measured, and small enough for sums in 32 bits.
  private static let importanceLimit: Float = 1e10

  /// Nothing.
  package init() { (matrix, factors, names, files) = (nil, nil, [:], []) }

  /// - Parameters:
  ///   - importance: a file in either form of `llama-imatrix`.
  ///   - feedback: a file of `nibble.calibrate --hessian`.
  package init(
    importance: String?, feedback: String?, _ settings: FactorSettings, of input: GGUFContents
  ) throws(Failure) {
    let file = try importance.map { path throws(Failure) in
      try InputFile(path: path, name: FileName.last(of: path))
    }
    if let file, InputStatistics.isLikely(file) {
      throw Failure(
        .unsupported,
        "is a file of nibble.calibrate's own; a GGUF file takes the importance matrix that it writes with "
          + "--imatrix", file: file.name)
    }
    matrix = try file.map { file throws(Failure) in try ImportanceMatrix(file) }
    factors = try feedback.map { path throws(Failure) in try MeasuredFactors(path: path, settings: settings) }
    files = [file, factors?.file].compactMap(\.self)
    var names: [TensorName: TensorName] = [:]
    if let factors {
      do throws(Failure) {
        for (position, name) in try input.originalNames() { names[input.tensors[position].name] = name }
      } catch {
        throw Failure(
          .unsupported, "has the names of a Hugging Face model, which are not known for this one (\(error.message))",
          file: factors.file.name)
      }
    }
    self.names = names
  }

  // MARK: - Importance

  /// How much each column of the tensors matters, by position; nil without an importance matrix.
  package func importance(of tensors: [(position: Int, tensor: GGUFTensor)]) throws(Failure) -> [Int: [Float]]? {
    guard let matrix else { return nil }
    var found: [Int: [Float]] = [:]
    for (position, tensor) in tensors {
      guard let columns = tensor.shape.last else { continue }
      let experts = tensor.shape.count > 2 ? tensor.shape[0] : 1
      guard let weights = try matrix.weights(for: tensor.name.string, columns: columns, experts: experts) else {
        continue
      }
      if let largest = weights.max(), largest > Self.importanceLimit {
        throw Failure(
          .malformed, "has the weight \(largest), allowed are \(Self.importanceLimit) at most", file: matrix.fileName,
          tensor: tensor.name.string)
      }
      found[position] = weights
    }
    return found
  }

  /// The mean square of what each column is multiplied with, by position, as it was measured for feedback.
  package func means(of tensors: [(position: Int, tensor: GGUFTensor)]) throws(Failure) -> [Int: [Float]] {
    guard let factors else { return [:] }
    var found: [Int: [Float]] = [:]
    for (position, tensor) in tensors where tensor.shape.count == 2 {
      guard let name = names[tensor.name],
        let info = try? TensorInfo(name: name, type: .f32, shape: tensor.shape),
        let means = try factors.means(for: info), means.contains(where: { $0 > 0 })
      else { continue }
      found[position] = means
    }
    return found
  }

  // MARK: - Feedback

  /// By the names in GGUF; nil without such a file.
  package var feedback: (any InputFactors)? { factors.map { RenamedFactors(factors: $0, names: names) } }

  /// Whether the errors of a tensor are made good, for which no importance is asked then.
  func isFedBack(_ tensor: TensorInfo, _ type: GGMLType) -> Bool {
    feedback?.hasFactor(for: tensor) == true && BlockEncoder.canFeedBack(tensor, type)
  }

  var feedbackFile: String? { factors?.file.name }

  /// Which of the tensors to be quantized were measured.
  ///
  /// - Throws: `usage` where there are none, `malformed` for a file of another model.
  func feedbackWarnings(_ tensors: [(info: TensorInfo, type: GGMLType)]) throws(Failure) -> [Warning] {
    guard let factors else { return [] }
    guard !tensors.isEmpty else {
      throw Failure(.usage, "option '--feedback' has no effect: no tensor is quantized here")
    }
    var types: [TensorName: GGMLType] = [:]
    var weights: [TensorInfo] = []
    for (info, type) in tensors {
      let weight = RenamedFactors.renamed(info, names)
      // What is looked up is multiplied with nothing, unless it is the output's weight too.
      if info.name == Self.embedding, !factors.hasFactor(for: weight) { continue }
      types[weight.name] = type
      weights.append(weight)
    }
    return try factors.coverage(of: weights, where: "in a type without a level for each value") { weight in
      types[weight.name].map { BlockEncoder.canFeedBack(weight, $0) } ?? false
    }
  }
}

/// Factors that were measured under other names.
private struct RenamedFactors: InputFactors {
  let factors: MeasuredFactors
  let names: [TensorName: TensorName]

  static func renamed(_ weight: TensorInfo, _ names: [TensorName: TensorName]) -> TensorInfo {
    guard let name = names[weight.name] else { return weight }
    // What has such a shape already has no other failure.
    return (try? TensorInfo(name: name, type: weight.type, shape: weight.shape)) ?? weight
  }

  func hasFactor(for weight: TensorInfo) -> Bool { factors.hasFactor(for: Self.renamed(weight, names)) }

  func factor(for weight: TensorInfo, blocks: [Int]) throws(Failure) -> InverseFactor? {
    try factors.factor(for: Self.renamed(weight, names), blocks: blocks)
  }
}
