import Adapters
import Bytes
import Checkpoints
import Comparison
import PackedWeights
import Quantization
import Synchronization
import Tensors

/// The tensors of an adapter that is extracted, in file order.
struct ExtractedTensors: TensorSource {
  private enum Content: Sendable {
    /// One of the factors, by its position among these.
    case factor(Int)
    /// A tensor of the tuned model, by position among the pairs.
    case whole(Int)
  }

  let tensors: [TensorInfo]
  private let contents: [Content]
  private let factors: FactorTensors
  private let pair: CheckpointPair
  private let made: Made

  /// The reports so far.
  private final class Made: Sendable {
    let reports = Mutex<[ExtractReport.Module]>([])
  }

  /// - Parameters:
  ///   - modules: those that changed.
  ///   - saved: tensors of the tuned model that go along as they are.
  ///   - jobs: workers on one module.
  init(
    _ pair: CheckpointPair, modules: [ExtractPlan.Module], saved: [SavedTensors.Saved], rank: Int, type: FloatType,
    jobs: Int
  ) throws(Failure) {
    let made = Made()
    let planned = modules.map { module in
      FactorTensors.Module(
        path: module.path, rank: rank, inputs: module.inputs, outputs: module.outputs,
        storedByteCount: pair.storedByteCount(module.position))
    }
    factors = try FactorTensors(planned, type: type) { number throws(Failure) in
      let (report, a, b) = try Self.factors(of: modules[number], pair, rank: rank, type: type, jobs: jobs)
      made.reports.withLock { $0.append(report) }
      return (a, b)
    }
    self.pair = pair
    self.made = made
    var entries = factors.tensors.enumerated().map { (info: $1, content: Content.factor($0)) }
    for tensor in saved {
      let info = pair.infos(tensor.position).b
      let name = TensorName(FactorTensors.prefix + tensor.key)
      entries.append((try TensorInfo(name: name, type: info.type, shape: info.shape), .whole(tensor.position)))
    }
    // Wide elements first, so that all are aligned.
    let sorted = [8, 4, 2, 1].flatMap { width in entries.filter { $0.info.type.alignment == width } }
    tensors = sorted.map(\.info)
    contents = sorted.map(\.content)
  }

  /// The reports on the factors of each module, in file order.
  var reports: [ExtractReport.Module] { made.reports.withLock { $0 } }

  /// Stored bytes of the module's pair for its A; 0 for the tensors that follow.
  func storedByteCount(of index: Int) -> Int {
    if case .factor(let position) = contents[index] { factors.storedByteCount(of: position) } else { 0 }
  }

  func read(_ index: Int, at offset: Int, into destination: inout MutableRawSpan) throws(Failure) {
    switch contents[index] {
    case .factor(let position): try factors.read(position, at: offset, into: &destination)
    case .whole(let position):
      let tuned = pair.b
      let stored = pair.common[position].b
      try tuned.read(stored, at: offset, into: &destination)
      try checkFinite(destination.bytes, tuned.source.tensors[stored], at: offset)
    }
  }

  /// The factors of one module's change, rounded to the adapter's dtype.
  private static func factors(
    of module: ExtractPlan.Module, _ pair: CheckpointPair, rank: Int, type: FloatType, jobs: Int
  ) throws(Failure) -> (report: ExtractReport.Module, a: FloatMatrix, b: FloatMatrix) {
    let info = pair.infos(module.position).b
    do throws(Failure) {
      let (change, baseSquares, squares) = try DifferenceReader(
        from: pair.a.side(pair.common[module.position].a), to: pair.b.side(pair.common[module.position].b), jobs: jobs
      ).read()
      let found = try LowRankApproximation(of: change, rank: rank, norm: squares.squareRoot(), jobs: jobs)
      try found.left.round(to: type)
      try found.right.round(to: type)
      let left = try FactorResidual.squares(change, left: found.left, right: found.right, jobs: jobs)
      let report = ExtractReport.Module(
        module: module.path, rank: found.rank, residual: left.residual, change: left.whole, base: baseSquares,
        singularValues: found.singularValues)
      // ΔW = B A is [outputs, inputs].
      if module.isTransposed { return (report, a: try found.left.transposed(), b: try found.right.transposed()) }
      return (report, a: found.right, b: found.left)
    } catch {
      // A signal, or a disk that is full, has nothing to do with the tensor in hand.
      guard [.malformed, .unsupported, .internal].contains(error.code) else { throw error }
      throw error.located(file: pair.b.path, tensor: info.name.string)
    }
  }

  private func checkFinite(_ values: RawSpan, _ info: TensorInfo, at offset: Int) throws(Failure) {
    guard let type = FloatType(info.type) else { return }
    var statistics = ValueStatistics()
    statistics.add(values, as: type)
    guard statistics.finite == statistics.count else {
      throw Failure(
        .malformed, "has a value that is not finite in its elements from \(offset / type.byteCount) on",
        file: pair.b.path, tensor: info.name.string)
    }
  }
}

extension ComparedCheckpoint {
  /// One of its matrices.
  fileprivate func side(_ index: Int) -> MatrixSide {
    MatrixSide(source.tensors[index], path: path) { (offset, destination) throws(Failure) in
      try read(index, at: offset, into: &destination)
    }
  }
}
