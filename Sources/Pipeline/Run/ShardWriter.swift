import Bytes
import Quantization
import Safetensors
import Tensors

/// Writes a plan's shards from front to back, taking every digest from the bytes as they pass.
final class ShardWriter {
  private let plan: OutputPlan
  private let files: StagedDirectory.Files
  private let wantsSHA256: Bool

  private var file: HashedFile?
  private var shardIndex = -1
  private var outputHasher = TensorHasher()
  private var storedHasher = XXH3Hasher()

  /// Of the shards finished so far.
  private(set) var fileDigests: [FileDigests] = []
  /// Of every tensor written so far, in the order of the plan.
  private(set) var outputDigests: [TensorDigests] = []
  /// By position in `plan.stored.tensors`; nil for what was not read.
  private(set) var storedDigests: [XXH3Digest?]

  init(_ plan: OutputPlan, files: StagedDirectory.Files, sha256: Bool) {
    self.plan = plan
    self.files = files
    wantsSHA256 = sha256
    storedDigests = Array(repeating: nil, count: plan.stored.tensors.count)
  }

  /// Pieces come in the order of the plan.
  func write(_ piece: Piece, _ buffer: PieceBuffer) throws(Failure) {
    if piece.isFirst {
      try openShard(of: piece.stepIndex)
      outputHasher.begin(byteCount: try plan.firstOutputByteCount(of: piece.work.step))
      storedHasher.reset()
    }
    let isCopy = piece.work.step.action == .copy
    switch piece.work.step.origin {
    // A copy has the digest of what it is a copy of.
    case .stored: if !isCopy { unsafe storedHasher.update(buffer.input) }
    case .traced: unsafe storedHasher.update(buffer.stored)
    case .derived: break
    }
    if case .stored(let index) = piece.work.step.origin, isCopy,
      let (source, offset) = try (plan.stored as? any StoredCheckpoint)?.place(of: index)
    {
      unsafe outputHasher.update(buffer.output)
      try unsafe file?.append(buffer.output, copiedFrom: source, at: offset + piece.range.lowerBound)
    } else {
      try unsafe append(buffer.output)
    }
    if piece.isLast {
      outputDigests.append(outputHasher.finish())
      if case .quantize(let type) = piece.work.step.action { try appendStatistics(of: piece.work, type) }
      try takeStoredDigests(of: piece.work.step)
    }
  }

  /// Finishes the last shard; a plan without tensors still gives one, empty, file.
  func finish() throws(Failure) {
    if plan.steps.isEmpty, let shard = plan.shards.first { try open(shard) }
    try closeShard()
  }

  // MARK: - Shards

  private func openShard(of stepIndex: Int) throws(Failure) {
    if shardIndex >= 0, plan.shards[shardIndex].steps.contains(stepIndex) { return }
    try closeShard()
    shardIndex += 1
    try open(plan.shards[shardIndex])
  }

  private func open(_ shard: OutputPlan.Shard) throws(Failure) {
    var file = HashedFile(try files.create(shard.name), sha256: wantsSHA256)
    try file.append(try plan.header(of: shard))
    self.file = consume file
  }

  private func closeShard() throws(Failure) {
    guard let finished = file.take() else { return }
    fileDigests.append(try finished.finish())
  }

  private func append(_ bytes: UnsafeRawBufferPointer) throws(Failure) {
    unsafe outputHasher.update(bytes)
    try unsafe file?.append(bytes)
  }

  private func appendTensor(_ bytes: UnsafeRawBufferPointer) throws(Failure) {
    outputHasher.begin(byteCount: bytes.count)
    try unsafe append(bytes)
    outputDigests.append(outputHasher.finish())
  }

  // MARK: - What follows the codes

  private func appendStatistics(of work: TensorWork, _ type: FloatType) throws(Failure) {
    guard let scheme = plan.scheme else { throw Failure(.internal, "a quantizing step without a scheme") }
    let absmax = unsafe UnsafeBufferPointer(work.absmax)
    let outputs = try scheme.outputs(for: work.info, type: type)
    let nested = scheme.usesDoubleQuantization ? unsafe NestedAbsmax(absmax) : nil
    defer {
      extendLifetime(nested)
      extendLifetime(work)
    }
    for (part, output) in zip(scheme.parts, outputs) {
      switch part {
      case .codes: break
      case .absmax: try unsafe appendTensor(UnsafeRawBufferPointer(absmax))
      case .absmaxCodes: if let nested { try unsafe appendTensor(UnsafeRawBufferPointer(nested.codes)) }
      case .nestedAbsmax: if let nested { try unsafe appendTensor(UnsafeRawBufferPointer(nested.absmax)) }
      case .quantMap: try appendTensor(scheme.format.code.levels)
      case .nestedQuantMap: try appendTensor(DoubleQuantization.map)
      case .quantState:
        let text = scheme.state(of: work.info, type: type, offset: nested?.offset ?? 0).text
        let padding = output.byteCount - text.utf8.count
        guard padding >= 0 else {
          throw Failure(.internal, "the quant_state outgrew its place", tensor: output.name.string)
        }
        try appendTensor(Array(text.utf8) + Array(repeating: UInt8(ascii: " "), count: padding))
      }
    }
  }

  private func appendTensor<T: BitwiseCopyable>(_ values: [T]) throws(Failure) {
    var failure: Failure?
    unsafe values.withUnsafeBytes { bytes in
      do throws(Failure) { try unsafe appendTensor(bytes) } catch { failure = error }
    }
    if let failure { throw failure }
  }

  // MARK: - The source's digests

  private func takeStoredDigests(of step: Step) throws(Failure) {
    switch step.origin {
    case .stored(let index) where step.action == .copy: storedDigests[index] = outputDigests.last?.whole
    case .stored(let index), .traced(let index): storedDigests[index] = storedHasher.digest
    case .derived(let indices):
      for index in indices { storedDigests[index] = try plan.stored.digest(of: index) }
    }
  }
}

/// The second level of quantization of one tensor's absmax.
@safe final class NestedAbsmax {
  let offset: Float
  let codes: UnsafeMutableBufferPointer<UInt8>
  let absmax: UnsafeMutableBufferPointer<Float>

  /// - Parameter offset: what is subtracted first; the mean, unless another is given.
  init(_ values: UnsafeBufferPointer<Float>, offset given: Float? = nil) {
    unsafe codes = .allocate(capacity: values.count)
    let blocks = (values.count + DoubleQuantization.blockSize - 1) / DoubleQuantization.blockSize
    unsafe absmax = .allocate(capacity: blocks)
    offset = unsafe given ?? DoubleQuantization.offset(values)
    unsafe DoubleQuantization.quantize(values, offset: offset, codes: codes, nestedAbsmax: absmax)
  }

  deinit {
    unsafe codes.deallocate()
    unsafe absmax.deallocate()
  }
}

extension TensorSource {
  /// Reads one tensor in pieces of bounded size, front to back.
  func forEachPiece(
    of index: Int, _ body: (UnsafeRawBufferPointer) throws(Failure) -> Void
  ) throws(Failure) {
    let total = tensors[index].byteCount
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: min(total, OrderedRun.pieceBytes), alignment: 64)
    defer { unsafe buffer.deallocate() }
    var position = 0
    while position < total {
      let piece = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[..<min(buffer.count, total - position)])
      try unsafe read(index, at: position, into: piece)
      try unsafe body(UnsafeRawBufferPointer(piece))
      position += piece.count
    }
  }

  func digest(of index: Int) throws(Failure) -> XXH3Digest {
    var hasher = XXH3Hasher()
    try unsafe forEachPiece(of: index) { bytes throws(Failure) in unsafe hasher.update(bytes) }
    return hasher.digest
  }
}
