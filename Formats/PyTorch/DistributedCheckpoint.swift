package import Bytes
package import Tensors

/// A directory of `torch.distributed.checkpoint`, which FSDP and what is built on it save: `.metadata`, and a file or more
/// of each process with its parts of the tensors. Opening reads the pickles, no data.
package final class DistributedCheckpoint: TrainingCheckpoint {
  /// The directory of `.metadata` as the user named it.
  package let path: String
  /// Findings that are worth knowing and no errors, one line each.
  package let warnings: [Warning]

  private let assembled: AssembledTensors
  private let metadata: InputFile

  /// What accelerate and the Trainer put a model's checkpoint into, beside that of the optimizer.
  package static let folders = ["pytorch_model_fsdp_0", "pytorch_model_fsdp"]

  /// Whether a directory is one, whole or not.
  package static func isThere(in directory: InputDirectory) throws(Failure) -> Bool {
    try directory.names().contains { $0 == DistributedMetadata.name || $0.hasSuffix(".distcp") }
  }

  /// - Parameter directory: the one that `.metadata` lies in.
  /// - Throws: `missing` for a save that was not finished and for a file that is not there, `malformed` where files and
  ///   metadata say different things, `unsupported` for parts that are stored in another form.
  package init(_ directory: InputDirectory) throws(Failure) {
    guard directory.contains(DistributedMetadata.name) else {
      throw Failure(
        .missing,
        "has no '\(DistributedMetadata.name)', which is written last: the save was not finished", file: directory.path)
    }
    metadata = try directory.open(DistributedMetadata.name)
    let listed = try DistributedMetadata(metadata)
    let contents: DistributedContents
    do throws(Failure) { contents = try DistributedContents(listed) } catch {
      throw error.located(file: DistributedMetadata.name)
    }
    let wanted = contents.tensors
    let names = Set(wanted.flatMap { $0.chunks.map { TensorName($0.file) } }).sorted().map(\.string)
    for name in names where !directory.contains(name) {
      let tensor = wanted.first { $0.chunks.contains { $0.file == name } }
      throw Failure(
        .missing, "the file is missing; the first tensor in it is this one", file: name, tensor: tensor?.name)
    }
    let pool = FilePool(directory: directory, names: names)
    var positions: [String: Int] = [:]
    for (position, name) in names.enumerated() { positions[name] = position }
    var assembled: [AssembledTensor] = []
    for tensor in wanted {
      assembled.append(try Self.assemble(tensor, String(tensor.name.dropFirst(contents.prefix.count)), pool, positions))
    }
    path = directory.path
    self.assembled = AssembledTensors(assembled, in: names, pool)
    var warnings: [Warning] = []
    if contents.stateCount > 0 {
      warnings.append("\(list: [path]): left out \(counted(contents.stateCount, "tensor")) of an optimizer's state")
    }
    if !contents.beside.isEmpty {
      warnings.append("\(list: [path]): left out what stands beside the model: \(names: contents.beside)")
    }
    if !contents.others.isEmpty {
      warnings.append("\(list: [path]): ignored \(names: contents.others), which are no tensors")
    }
    self.warnings = warnings
  }

  private static func assemble(
    _ tensor: DistributedMetadata.Tensor, _ name: String, _ pool: FilePool, _ positions: [String: Int]
  ) throws(Failure) -> AssembledTensor {
    do throws(Failure) {
      guard let type = ScalarType(dtype: tensor.dtype)?.element else {
        throw Failure(
          .unsupported, "has the type '\(tensor.dtype.printable(limit: 64))', which no other file can hold")
      }
      let info = try TensorInfo(name: TensorName(name), type: type, shape: tensor.shape)
      var parts: [AssembledTensor.Part] = []
      for chunk in tensor.chunks {
        guard let position = positions[chunk.file] else { throw Failure(.internal, "no file '\(chunk.file)'") }
        let file = try pool.file(position)
        let archive = try PyTorchArchive(FileSlice(file, offset: chunk.range.lowerBound, length: chunk.range.count))
        let view = try archive.tensor(of: archive.graph.root, named: info.name)
        guard view.info.shape == chunk.sizes else {
          throw Failure(
            .malformed, "has a part of shape \(view.info.shape) where '.metadata' says \(chunk.sizes)", file: file.name)
        }
        parts.append(.init(file: position, view: view, offsets: chunk.offsets, sizes: chunk.sizes))
      }
      return try AssembledTensor(info, parts: parts)
    } catch { throw error.located(tensor: tensor.name) }
  }

  package var tensors: [TensorInfo] { assembled.tensors }
  package var fileNames: [String] { assembled.fileNames + [DistributedMetadata.name] }
  package var identities: [FileIdentity] { assembled.identities + [metadata.identity] }

  package func index(of name: TensorName) -> Int? { assembled.index(of: name) }
  package func location(of index: Int) -> (file: String, offset: Int) {
    assembled.location(of: index) ?? (DistributedMetadata.name, 0)
  }
  package func place(of index: Int) throws(Failure) -> (file: InputFile, offset: Int)? {
    try assembled.place(of: index)
  }
  package func read(_ index: Int, at offset: Int, into destination: inout MutableRawSpan) throws(Failure) {
    try assembled.read(index, at: offset, into: &destination)
  }
  package func checkUnchanged() throws(Failure) {
    try metadata.checkUnchanged()
    try assembled.checkUnchanged()
  }
}
