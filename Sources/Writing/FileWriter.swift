package import Bytes
import Checkpoints
import Tensors

/// Writes a plan's files from front to back, taking every digest from the bytes as they pass.
final class FileWriter {
  /// What is written, with every size that is known by now.
  private(set) var plan: WritePlan
  private let files: StagedDirectory.Files
  private let wantsSHA256: Bool

  private var file: HashedFile?
  private var fileIndex = -1
  /// Of the file under way.
  private var headerByteCount = 0
  /// Whether the file under way has a tensor whose size was a bound.
  private var hasSettled = false
  /// Bytes written of the tensor under way, where its size was a bound.
  private var boundedSize: Int?
  private var outputHasher = TensorHasher()
  private var storedHasher = XXH3Hasher()

  /// The digests of the files finished so far.
  private(set) var fileDigests: [FileDigests] = []
  /// The digests of every tensor written so far, in the order of the plan.
  private(set) var outputDigests: [TensorDigests] = []
  /// The digests of stored tensors, by position in `plan.stored.tensors`; nil for those that were not read.
  private(set) var storedDigests: [XXH3Digest?]

  init(_ plan: WritePlan, files: StagedDirectory.Files, sha256: Bool) {
    self.plan = plan
    self.files = files
    wantsSHA256 = sha256
    storedDigests = Array(repeating: nil, count: plan.stored.tensors.count)
  }

  /// Pieces come in the order of the plan.
  func write(_ piece: Piece, _ buffer: PieceBuffer) throws(Failure) {
    let work = piece.work
    if piece.isFirst {
      try openFile(of: work.stepIndex)
      let output = try plan.outputs(of: work.step).first
      boundedSize = output?.isBounded == true ? 0 : nil
      // Digests of pieces need the size first.
      outputHasher.begin(byteCount: boundedSize ?? output?.byteCount ?? 0)
      storedHasher.reset()
    }
    let isCopy = work.encoder.keepsBytes
    switch work.step.origin {
    // A copy has the digest of what it is a copy of.
    case .stored: if !isCopy { storedHasher.update(buffer.input) }
    case .traced:
      let stored = buffer.stored
      storedHasher.update(stored.bytes)
    case .derived: break
    }
    outputHasher.update(buffer.output)
    if case .stored(let index) = work.step.origin, isCopy,
      let (source, offset) = try (plan.stored as? any StoredCheckpoint)?.place(of: index)
    {
      try file?.append(buffer.output, copiedFrom: source, at: offset + piece.range.lowerBound)
    } else {
      try file?.append(buffer.output)
    }
    if let size = boundedSize { boundedSize = size.addingSaturated(buffer.output.byteCount) }
    guard piece.isLast else { return }
    if let boundedSize {
      plan.settledSizes[work.step.tensor] = boundedSize
      hasSettled = true
    }
    outputDigests.append(outputHasher.finish())
    try pad()
    try work.encoder.finish(work) { bytes throws(Failure) in try append(bytes) }
    try takeStoredDigests(of: work)
  }

  /// Finishes the last file; a plan without tensors still gives one.
  func finish() throws(Failure) {
    if fileIndex < 0, !plan.container.files.isEmpty { try open(0) }
    try closeFile()
  }

  private func openFile(of stepIndex: Int) throws(Failure) {
    if fileIndex >= 0, plan.container.files[fileIndex].steps.contains(stepIndex) { return }
    try closeFile()
    try open(fileIndex + 1)
  }

  private func open(_ index: Int) throws(Failure) {
    fileIndex = index
    var file = HashedFile(try files.create(plan.container.files[index].name), sha256: wantsSHA256)
    let header = try plan.header(of: index)
    try file.append(header)
    headerByteCount = header.count
    hasSettled = false
    self.file = consume file
  }

  /// The header of a file whose tensors had bounds is written over the one that kept its place.
  private func closeFile() throws(Failure) {
    guard var finished = file.take() else { return }
    if hasSettled {
      plan.keptHeaders[fileIndex] = headerByteCount
      try finished.overwriteStart(try plan.header(of: fileIndex))
    }
    fileDigests.append(try finished.finish())
  }

  /// One whole tensor.
  private func append(_ bytes: RawSpan) throws(Failure) {
    outputHasher.begin(byteCount: bytes.byteCount)
    outputHasher.update(bytes)
    try file?.append(bytes)
    outputDigests.append(outputHasher.finish())
    try pad()
  }

  private func pad() throws(Failure) {
    guard let size = file?.size else { return }
    let rest = size.aligned(upTo: plan.container.alignment) - size
    if rest > 0 { try file?.append([UInt8](repeating: 0, count: rest)) }
  }

  private func takeStoredDigests(of work: TensorWork) throws(Failure) {
    switch work.step.origin {
    case .stored(let index) where work.encoder.keepsBytes: storedDigests[index] = outputDigests.last?.whole
    case .stored(let index), .traced(let index): storedDigests[index] = storedHasher.digest
    case .derived(let indices):
      for index in indices { storedDigests[index] = try plan.stored.digest(of: index) }
    }
  }
}

extension TensorSource {
  /// Reads one tensor in pieces of bounded size, front to back.
  package func forEachPiece(
    of index: Int, _ body: (RawSpan) throws(Failure) -> Void
  ) throws(Failure) {
    let total = tensors[index].byteCount
    var buffer = ScratchBuffer(byteCount: min(total, Piece.byteCount))
    var room = buffer.mutableBytes
    var position = 0
    while position < total {
      var piece = room.part(0..<min(Piece.byteCount, total - position))
      try read(index, at: position, into: &piece)
      try body(piece.bytes)
      position += piece.byteCount
    }
  }

  package func digest(of index: Int) throws(Failure) -> XXH3Digest {
    var hasher = XXH3Hasher()
    try forEachPiece(of: index) { bytes throws(Failure) in hasher.update(bytes) }
    return hasher.digest
  }
}
