import Bytes
import GGUF
import Tensors

/// Writes the files of a plan from front to back, taking every digest from the bytes as they pass.
final class GGUFWriter {
  private let plan: GGUFPlan
  private let files: StagedDirectory.Files
  private let wantsSHA256: Bool

  private var file: HashedFile?
  private var fileIndex = -1
  private var hasher = TensorHasher()

  /// Of the files finished so far.
  private(set) var fileDigests: [FileDigests] = []
  /// Of every tensor written so far, in the order of the plan.
  private(set) var tensorDigests: [TensorDigests] = []

  init(_ plan: GGUFPlan, files: StagedDirectory.Files, sha256: Bool) {
    self.plan = plan
    self.files = files
    wantsSHA256 = sha256
  }

  /// Pieces come in the order of the plan.
  func write(_ piece: GGUFPiece, _ buffer: GGUFBuffer) throws(Failure) {
    if piece.isFirst {
      try openFile(of: piece.tensor)
      hasher.begin(byteCount: plan.tensors[piece.tensor].byteCount)
    }
    unsafe hasher.update(buffer.output)
    try unsafe file?.append(buffer.output)
    guard piece.isLast else { return }
    tensorDigests.append(hasher.finish())
    try pad()
  }

  /// Finishes the last file; a plan without tensors still gives one.
  func finish() throws(Failure) {
    if fileIndex < 0 { try open(0) }
    try closeFile()
  }

  private func openFile(of tensor: Int) throws(Failure) {
    if fileIndex >= 0, plan.layout.files[fileIndex].tensors.contains(tensor) { return }
    try closeFile()
    try open(fileIndex + 1)
  }

  private func open(_ index: Int) throws(Failure) {
    fileIndex = index
    let planned = plan.layout.files[index]
    var file = HashedFile(try files.create(planned.name), sha256: wantsSHA256)
    try file.append(planned.header)
    self.file = consume file
  }

  private func pad() throws(Failure) {
    guard let size = file?.size else { return }
    let rest = size % plan.layout.alignment
    if rest > 0 { try file?.append([UInt8](repeating: 0, count: plan.layout.alignment - rest)) }
  }

  private func closeFile() throws(Failure) {
    guard let finished = file.take() else { return }
    fileDigests.append(try finished.finish())
  }
}
