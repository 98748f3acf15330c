import Adapters
import Bytes
import JSON
import Quantization
import Safetensors
import Tensors

/// One adapter being made from two models that have been compared.
struct ExtractRun {
  let pair: ExtractPair
  /// Those that changed.
  let modules: [ExtractPlan.Module]
  let layout: AdapterLayout
  let rank: Int
  let type: FloatType
  let options: RunOptions

  /// Writes the adapter's tensors, front to back.
  ///
  /// - Returns: what each module's factors hold, the digests of the tensors in file order, those of the file.
  func write(
    into files: StagedDirectory.Files
  ) throws(Failure) -> (modules: [ExtractReport.Module], tensors: [TensorDigests], file: FileDigests) {
    let plan = try OutputPlan(file: Adapter.weightsName, of: layout)
    var file = HashedFile(try files.create(Adapter.weightsName), sha256: options.sha256)
    for shard in plan.shards { try file.append(try plan.header(of: shard)) }
    var reports: [ExtractReport.Module] = []
    var digests: [TensorDigests] = []
    let total = modules.reduce(0) { $0.addingSaturated(pair.tensors.storedByteCount($1.position)) }
    let progress = Progress("extracting", total: total, style: options.progress)
    defer { progress.finish() }
    // B of the module whose A was written last.
    var pending: FloatMatrix?
    for content in layout.contents {
      switch content {
      case .a(let number):
        let (report, a, b) = try factors(of: modules[number])
        reports.append(report)
        digests.append(try append(a, to: &file))
        pending = b
        progress.advance(by: pair.tensors.storedByteCount(modules[number].position))
      case .b:
        guard let b = pending.take() else { throw Failure(.internal, "B without A") }
        digests.append(try append(b, to: &file))
      case .whole(let position): digests.append(try append(stored: position, to: &file))
      }
    }
    return (reports, digests, try file.finish())
  }

  /// The factors of one module's change, rounded to the adapter's dtype.
  private func factors(
    of module: ExtractPlan.Module
  ) throws(Failure) -> (report: ExtractReport.Module, a: FloatMatrix, b: FloatMatrix) {
    let info = pair.tensors.infos(module.position).b
    do throws(Failure) {
      let (change, baseSquares, squares) = try DifferenceReader(pair: pair.tensors, jobs: options.jobs)
        .read(module.position)
      let found = try LowRankApproximation(of: change, rank: rank, norm: squares.squareRoot(), jobs: options.jobs)
      try found.left.round(to: type)
      try found.right.round(to: type)
      let left = try FactorResidual.squares(change, left: found.left, right: found.right, jobs: options.jobs)
      let report = ExtractReport.Module(
        module: module.path, rank: found.rank, residual: left.residual, change: left.whole, base: baseSquares,
        singularValues: found.singularValues)
      // ΔW = B A is [outputs, inputs].
      if module.isTransposed { return (report, a: try found.left.transposed(), b: try found.right.transposed()) }
      return (report, a: found.right, b: found.left)
    } catch {
      // A signal, or a disk that is full, has nothing to do with the tensor in hand.
      guard [.malformed, .unsupported, .internal].contains(error.code) else { throw error }
      throw error.located(file: pair.tensors.b.path, tensor: info.name.string)
    }
  }

  private func append(_ matrix: FloatMatrix, to file: inout HashedFile) throws(Failure) -> TensorDigests {
    let stored = ScratchBuffer(byteCount: matrix.count * type.byteCount)
    defer { extendLifetime(stored) }
    do throws(Overflow) { try unsafe convert(matrix.bytes, from: .f32, to: type, into: stored.mutableBytes) } catch {
      throw Failure(.internal, "a factor that was rounded is beyond the range of its dtype")
    }
    try unsafe file.append(stored.bytes)
    var hasher = TensorHasher()
    unsafe hasher.begin(byteCount: stored.bytes.count)
    unsafe hasher.update(stored.bytes)
    return hasher.finish()
  }

  /// A tensor of the tuned model as it is.
  private func append(stored position: Int, to file: inout HashedFile) throws(Failure) -> TensorDigests {
    let tuned = pair.tensors.b
    let index = pair.tensors.common[position].b
    let info = tuned.source.tensors[index]
    var hasher = TensorHasher()
    hasher.begin(byteCount: info.byteCount)
    var offset = 0
    while offset < info.byteCount {
      try Interruption.check()
      let piece = ScratchBuffer(byteCount: min(OrderedRun.pieceBytes, info.byteCount - offset))
      defer { extendLifetime(piece) }
      try unsafe tuned.read(index, at: offset, into: piece.mutableBytes)
      try checkFinite(piece, info, at: offset, path: tuned.path)
      unsafe hasher.update(piece.bytes)
      try unsafe file.append(piece.bytes)
      offset += unsafe piece.bytes.count
    }
    return hasher.finish()
  }

  private func checkFinite(_ piece: ScratchBuffer, _ info: TensorInfo, at offset: Int, path: String) throws(Failure) {
    guard let type = FloatType(info.type) else { return }
    var statistics = ValueStatistics()
    unsafe statistics.add(piece.bytes, as: type)
    guard statistics.finite == statistics.count else {
      throw Failure(
        .malformed, "has a value that is not finite in its elements from \(offset / type.byteCount) on", file: path,
        tensor: info.name.string)
    }
  }
}
