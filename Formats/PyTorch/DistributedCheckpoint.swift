package import Bytes
package import Tensors

/// A directory of `torch.distributed.checkpoint`, which FSDP and what is built on it save: `.metadata`, and a file or
/// more of each process with its parts of the tensors; or the files alone, where they say what their parts are.
/// Opening reads the pickles and headers, no data.
package final class DistributedCheckpoint: TrainingCheckpoint {
  /// The directory of `.metadata` as the user named it.
  package let path: String
  /// Findings that are worth knowing and no errors, one line each.
  package let warnings: [Warning]

  private let assembled: AssembledTensors
  /// Nil where the files say what their parts are.
  private let metadata: InputFile?

  /// What accelerate and the Trainer put a model's checkpoint into, beside that of the optimizer; and what the writer
  /// for Hugging Face puts its shards into before it joins them.
  package static let folders = ["pytorch_model_fsdp_0", "pytorch_model_fsdp", "sharded"]

  /// Whether a directory is one, whole or not.
  package static func isThere(in directory: InputDirectory) throws(Failure) -> Bool {
    try directory.names().contains { $0 == DistributedMetadata.name || $0.hasSuffix(".distcp") }
  }

  /// Whether a name is one that the writer for Hugging Face gives to the parts of a process.
  package static func isShard(_ name: String) -> Bool { name.hasPrefix("shard-") && name.hasSuffix(".safetensors") }

  /// - Parameters:
  ///   - directory: the one that `.metadata` lies in, or files that say themselves what their parts are.
  ///   - parts: what a file of safetensors says of its parts.
  /// - Throws: `missing` for a save that was not finished and for a file that is not there, `malformed` where files and
  ///   metadata say different things, `unsupported` for parts that are stored in another form.
  package init(
    _ directory: InputDirectory, parts: @escaping (InputFile) throws(Failure) -> [DistributedPart]
  ) throws(Failure) {
    path = directory.path
    let shards = try directory.names().filter(Self.isShard)
    let listed: DistributedMetadata
    if !directory.contains(DistributedMetadata.name), !shards.isEmpty {
      metadata = nil
      var found: [(file: String, parts: [DistributedPart])] = []
      for name in shards { found.append((name, try parts(directory.open(name)))) }
      listed = try DistributedMetadata(found)
    } else {
      guard directory.contains(DistributedMetadata.name) else {
        throw Failure(
          .missing,
          "has no '\(DistributedMetadata.name)', which is written last: the save was not finished", file: directory.path
        )
      }
      let file = try directory.open(DistributedMetadata.name)
      listed = try DistributedMetadata(file)
      metadata = file
    }
    let contents: DistributedContents
    do throws(Failure) { contents = try DistributedContents(listed) } catch {
      throw error.located(file: metadata == nil ? directory.path : DistributedMetadata.name)
    }
    let wanted = contents.tensors
    let names = Set(wanted.flatMap { $0.chunks.map { TensorName($0.file) } }).sorted().map(\.string)
    for name in names where !directory.contains(name) {
      let tensor = wanted.first { $0.chunks.contains { $0.file == name } }
      throw Failure(
        .missing, "the file is missing; the first tensor in it is this one", file: name, tensor: tensor?.name)
    }
    let pool = FilePool(directory: directory, names: names)
    var assembly = DistributedAssembly(names, pool, parts)
    for tensor in wanted { try assembly.add(tensor, as: String(tensor.name.dropFirst(contents.prefix.count))) }
    assembled = AssembledTensors(assembly.tensors, in: names, pool)
    var warnings: [Warning] = []
    if metadata == nil {
      warnings.append(
        "\(list: [path]): put together from \(counted(names.count, "file")); nothing says how many there have been, so "
          + "the last may be missing")
    }
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

  package var tensors: [TensorInfo] { assembled.tensors }
  package var fileNames: [String] { assembled.fileNames + (metadata == nil ? [] : [DistributedMetadata.name]) }
  package var identities: [FileIdentity] { assembled.identities + [metadata?.identity].compactMap(\.self) }

  package func index(of name: TensorName) -> Int? { assembled.index(of: name) }
  package func location(of index: Int) -> (file: String, offset: Int) {
    assembled.location(of: index) ?? (fileNames.last ?? path, 0)
  }
  package func place(of index: Int) throws(Failure) -> (file: InputFile, offset: Int)? {
    try assembled.place(of: index)
  }
  package func read(_ index: Int, at offset: Int, into destination: inout MutableRawSpan) throws(Failure) {
    try assembled.read(index, at: offset, into: &destination)
  }
  package func checkUnchanged() throws(Failure) {
    try metadata?.checkUnchanged()
    try assembled.checkUnchanged()
  }
}
