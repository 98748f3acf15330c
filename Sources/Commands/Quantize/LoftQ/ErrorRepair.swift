import Adapters
import Bytes
import Checkpoints
import Quantization
import Synchronization
import Tensors
import Writing

/// Makes the factors of one module after the other. Memory is the error of one weight in 32 bits and, where inputs were
/// measured, their factor.
final class ErrorRepair: Sendable {
  private let modules: [QuantizedModule]
  private let rank: Int
  private let original: any TensorSource
  private let originalPath: String
  private let quantized: QuantizedWeights
  private let measured: MeasuredInputs
  private let jobs: Int
  private let made = Mutex<[AdapterReport.Module]>([])

  init(
    modules: [QuantizedModule], rank: Int, original: (source: any TensorSource, path: String),
    quantized: QuantizedWeights, measured: MeasuredInputs, jobs: Int
  ) {
    self.modules = modules
    self.rank = rank
    (self.original, originalPath) = original
    self.quantized = quantized
    self.measured = measured
    self.jobs = jobs
  }

  /// Of the modules done, in their order.
  var reports: [AdapterReport.Module] { made.withLock { $0 } }

  func factors(of number: Int) throws(Failure) -> (a: FloatMatrix, b: FloatMatrix) {
    let module = modules[number]
    do throws(Failure) {
      let (a, b, report) = try factors(module)
      made.withLock { $0.append(report) }
      return (a, b)
    } catch {
      // A signal, or a disk that is full, has nothing to do with the tensor in hand.
      guard [.malformed, .unsupported, .internal].contains(error.code), error.file == nil else { throw error }
      throw error.located(file: originalPath, tensor: module.weight.name.string)
    }
  }

  private func factors(
    _ module: QuantizedModule
  ) throws(Failure) -> (a: FloatMatrix, b: FloatMatrix, AdapterReport.Module) {
    let error = try error(module)
    let metric = try measured.metric(for: module.weight)
    try metric.weigh(error, jobs: jobs)
    var statistics = ValueStatistics()
    statistics.add(error.bytes, as: .f32)
    let squares = statistics.sumOfSquares
    guard statistics.finite == statistics.count else {
      throw Failure(.malformed, "what was measured of its inputs makes its error too large for 32 bits")
    }
    let found = try LowRankApproximation(ofError: error, rank: rank, norm: squares.squareRoot(), jobs: jobs)
    let a = try metric.unweigh(found.right, jobs: jobs)
    let b = found.left
    try balance(a, b)
    let captured = found.singularValues.reduce(0.0) { $0 + Double($1) * Double($1) }
    let report = AdapterReport.Module(
      module: module.path, rank: found.rank, repaired: squares > 0 ? min(1, captured / squares) : nil)
    return (a, b, report)
  }

  /// What quantization took: the weight as it was, without what it stands for now.
  private func error(_ module: QuantizedModule) throws(Failure) -> FloatMatrix {
    let (info, source, index) = try quantized.matrix(module.weight)
    let (original, tensor) = (original, module.step.tensor)
    let now = MatrixSide(info, path: quantized.path) { (offset, destination) throws(Failure) in
      try source.read(index, at: offset, into: &destination)
    }
    let before = MatrixSide(module.weight, path: originalPath) { (offset, destination) throws(Failure) in
      try original.read(tensor, at: offset, into: &destination)
    }
    return try DifferenceReader(from: now, to: before, jobs: jobs).read().matrix
  }

  /// Makes each row of A as long as the column of B that goes with it, as the roots of singular values on both sides
  /// do where nothing weighs: who trains them takes steps of one size in both.
  private func balance(_ a: FloatMatrix, _ b: FloatMatrix) throws(Failure) {
    for index in 0..<a.rows {
      let right = (0..<a.columns).reduce(0.0) { $0 + Double(a[index, $1]) * Double(a[index, $1]) }
      let left = (0..<b.rows).reduce(0.0) { $0 + Double(b[$1, index]) * Double(b[$1, index]) }
      guard right > 0, left > 0 else { continue }
      let factor = (right / left).squareRoot().squareRoot()
      for column in 0..<a.columns { a[index, column] = Float(Double(a[index, column]) / factor) }
      for row in 0..<b.rows { b[row, index] = Float(Double(b[row, index]) * factor) }
    }
    for matrix in [a, b] {
      var statistics = ValueStatistics()
      statistics.add(matrix.bytes, as: .f32)
      guard statistics.finite == statistics.count else {
        throw Failure(.malformed, "needs a factor beyond the range of float32")
      }
    }
  }
}
