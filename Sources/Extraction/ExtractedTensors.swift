import Adapters
import Bytes
import Checkpoints
import Comparison
import PackedWeights
import Quantization
import Synchronization
import Tensors

/// The tensors of an adapter that is extracted, in file order. The factors of a module are made when its A is read, and
/// kept for its B, which follows.
struct ExtractedTensors: TensorSource {
  private enum Content: Sendable {
    /// A and B of a module, by its place among the modules that changed.
    case a(Int)
    case b(Int)
    /// A tensor of the tuned model, by position among the pairs.
    case whole(Int)
  }

  let tensors: [TensorInfo]
  private let contents: [Content]

  /// The prefix of every name in a PEFT adapter.
  static let prefix = "base_model.model."

  /// - Parameters:
  ///   - modules: those that changed.
  ///   - saved: tensors of the tuned model that go along as they are.
  init(
    _ pair: CheckpointPair, modules: [ExtractPlan.Module], saved: [SavedTensors.Saved], rank: Int, type: FloatType,
    jobs: Int
  ) throws(Failure) {
    self.pair = pair
    self.modules = modules
    self.rank = rank
    self.type = type
    self.jobs = jobs
    var entries: [(info: TensorInfo, content: Content)] = []
    for (number, module) in modules.enumerated() {
      let a = TensorName("\(Self.prefix)\(module.path).lora_A.weight")
      let b = TensorName("\(Self.prefix)\(module.path).lora_B.weight")
      entries.append((try TensorInfo(name: a, type: type.elementType, shape: [rank, module.inputs]), .a(number)))
      entries.append((try TensorInfo(name: b, type: type.elementType, shape: [module.outputs, rank]), .b(number)))
    }
    for tensor in saved {
      let info = pair.infos(tensor.position).b
      let name = TensorName(Self.prefix + tensor.key)
      entries.append((try TensorInfo(name: name, type: info.type, shape: info.shape), .whole(tensor.position)))
    }
    // Wide elements first, so that all are aligned.
    let sorted = [8, 4, 2, 1].flatMap { width in entries.filter { $0.info.type.alignment == width } }
    tensors = sorted.map(\.info)
    contents = sorted.map(\.content)
  }

  private let pair: CheckpointPair
  private let modules: [ExtractPlan.Module]
  private let rank: Int
  private let type: FloatType
  /// Workers on one module.
  private let jobs: Int
  private let made = Made()

  /// The factors computed last and the reports so far.
  private final class Made: Sendable {
    struct State {
      /// The module whose factors are kept, as they are stored.
      var module = -1
      var a: [UInt8] = []
      var b: [UInt8] = []
      var reports: [ExtractReport.Module] = []
    }

    let state = Mutex(State())
  }

  /// The reports on the factors of each module, in file order.
  var reports: [ExtractReport.Module] { made.state.withLock { $0.reports } }

  /// Stored bytes of the module's pair for its A; 0 for the tensors that follow.
  func storedByteCount(of index: Int) -> Int {
    if case .a(let number) = contents[index] { pair.storedByteCount(modules[number].position) } else { 0 }
  }

  func read(_ index: Int, at offset: Int, into destination: inout MutableRawSpan) throws(Failure) {
    switch contents[index] {
    case .a(let number): try readFactor(of: number, { $0.a }, at: offset, into: &destination)
    case .b(let number): try readFactor(of: number, { $0.b }, at: offset, into: &destination)
    case .whole(let position):
      let tuned = pair.b
      let stored = pair.common[position].b
      try tuned.read(stored, at: offset, into: &destination)
      try checkFinite(destination.bytes, tuned.source.tensors[stored], at: offset)
    }
  }

  private func readFactor(
    of number: Int, _ factor: (Made.State) -> [UInt8], at offset: Int,
    into destination: inout MutableRawSpan
  ) throws(Failure) {
    try made.state.withLock { (state) throws(Failure) in
      if state.module != number {
        let (report, a, b) = try factors(of: modules[number])
        state.a = try stored(a)
        state.b = try stored(b)
        state.module = number
        state.reports.append(report)
      }
      let bytes = factor(state)
      guard offset >= 0, offset + destination.byteCount <= bytes.count else {
        throw Failure(.internal, "a factor is smaller than was planned")
      }
      destination.copy(from: bytes.span.rawBytes.extracting(offset..<offset + destination.byteCount))
    }
  }

  /// A matrix as the file has it.
  private func stored(_ matrix: FloatMatrix) throws(Failure) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: matrix.count * type.byteCount)
    var span = bytes.mutableSpan
    var room = span.mutableRawBytes
    do throws(Overflow) { try convert(matrix.bytes, from: .f32, to: type, into: &room) } catch {
      throw Failure(.internal, "a factor that was rounded is beyond the range of its dtype")
    }
    return bytes
  }

  /// The factors of one module's change, rounded to the adapter's dtype.
  private func factors(
    of module: ExtractPlan.Module
  ) throws(Failure) -> (report: ExtractReport.Module, a: FloatMatrix, b: FloatMatrix) {
    let info = pair.infos(module.position).b
    do throws(Failure) {
      let (change, baseSquares, squares) = try DifferenceReader(pair: pair, jobs: jobs)
        .read(module.position)
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
