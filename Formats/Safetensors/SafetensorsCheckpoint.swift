public import Bytes
import JSON
public import Tensors

/// The tensors of a model in safetensors form: one file, or a directory with one file or with an index
/// and its shards. Opening reads the index and the headers, no data.
///
/// Index and shards have been checked against each other: every tensor is in exactly the one file that
/// the index names, and the index names every tensor.
public final class SafetensorsCheckpoint: TensorSource {
  /// One file of the checkpoint.
  public struct File: Sendable {
    /// The file's path, relative to the checkpoint's directory.
    public let name: String
    /// The file's size in bytes.
    public let size: Int
    /// Offset of the first data byte: the header with its length.
    public let dataStart: Int
    public let metadata: [(key: String, value: String)]
    /// Positions in `tensors` of what the file holds, in the order of its data.
    public let tensors: Range<Int>
  }

  /// The path as the user named it.
  public let path: String
  /// The directory that holds the files; nil when a file was named.
  public let directory: InputDirectory?
  /// The index that was followed; nil when there is none.
  public let indexName: String?
  /// Sorted by name.
  public let files: [File]
  /// The tensors file by file, in the order of their data.
  public let tensors: [TensorInfo]
  /// Findings that are worth knowing and no errors, one line each.
  public let warnings: [Warning]
  /// An index that other loaders would look for, and why it was not followed; nil as a rule.
  public let indexFault: (file: String, text: String)?

  private let offsets: [Int]
  private let order: KeyOrder
  private let pool: FilePool

  /// Opens a directory or a file, known by its content.
  ///
  /// - Throws: `missing` when something that should be there is not, naming the shard and a tensor;
  ///   `malformed` when it is inconsistent; `unsupported` when it is a checkpoint of another kind.
  public convenience init(path: String) throws(Failure) {
    if InputDirectory.exists(at: path) {
      try self.init(directory: InputDirectory(path: path))
    } else {
      let file = try HubCache.openModel(at: path)
      // Whoever named it knows it by the path.
      if var failure = try OtherFormat.failure(of: file) {
        failure.file = path
        throw failure
      }
      try self.init(file: file, path: path)
    }
  }

  private convenience init(file: InputFile, path: String) throws(Failure) {
    var assembly = CheckpointAssembly()
    try assembly.add(file)
    try assembly.finish()
    self.init(assembly, path: path, directory: nil, indexName: nil, pool: FilePool(file: file))
  }

  /// Opens the checkpoint in a directory: an index and its shards, or the one safetensors file.
  ///
  /// - Parameter opened: one of its files, whose header is not read again.
  public convenience init(directory: InputDirectory, opened: SafetensorsFile? = nil) throws(Failure) {
    let choice = try CheckpointChoice(in: directory)
    var assembly = CheckpointAssembly(opened: opened)
    assembly.warnings = choice.warnings
    switch choice.kind {
    case .file(let name):
      let pool = FilePool(directory: directory, names: [name])
      try assembly.add(pool.file(0))
      try assembly.finish()
      self.init(assembly, path: directory.path, directory: directory, indexName: nil, pool: pool)
    case .shards(let shards):
      let name = "\(shards.stem).safetensors.index.json"
      let fault = "is missing; the \(shards.names.count) shards are complete by their numbers, and their headers count"
      try self.init(shards, in: directory, assembly, fault: (name, fault))
    case .index(let name):
      let index = try Self.readIndex(name, in: directory)
      if choice.hasSingleFile, !index.files.contains(CheckpointChoice.singleName) {
        throw Failure(
          .malformed,
          "does not list '\(CheckpointChoice.singleName)', which lies beside it and which other loaders "
            + "read instead of the shards; name the file or remove one of the two", file: name)
      }
      if let (shards, fault) = try Self.shardsBeside(index, in: directory) {
        try self.init(shards, in: directory, assembly, fault: (name, fault))
        return
      }
      let pool = FilePool(directory: directory, names: index.files)
      for (number, file) in index.files.enumerated() {
        guard directory.contains(file) else {
          let tensors = index.tensors(in: number)
          throw Failure(
            .missing,
            "the file is missing; '\(name)' puts \(counted(tensors?.count ?? 0, "tensor")) into it, the first of them "
              + "this one", file: file, tensor: tensors?.first)
        }
        try assembly.add(pool.file(number))
      }
      try assembly.finish()
      try assembly.check(against: index, named: name)
      self.init(assembly, path: directory.path, directory: directory, indexName: name, pool: pool)
    }
  }

  /// By their headers, where no index is to be had.
  private convenience init(
    _ shards: NumberedShards, in directory: InputDirectory, _ assembly: consuming CheckpointAssembly,
    fault: (file: String, text: String)
  ) throws(Failure) {
    let pool = FilePool(directory: directory, names: shards.names)
    for number in shards.names.indices { try assembly.add(pool.file(number)) }
    try assembly.finish()
    self.init(assembly, path: directory.path, directory: directory, indexName: nil, pool: pool, fault: fault)
  }

  /// The shards that are there instead of those that an index names, as after renaming or other shards; nil where
  /// something that the index names is there and not among them, or nothing it names is missing.
  private static func shardsBeside(
    _ index: ShardIndex, in directory: InputDirectory
  ) throws(Failure) -> (NumberedShards, fault: String)? {
    let missing = index.files.filter { !directory.contains($0) }
    guard let first = missing.first, let shards = try NumberedShards(in: directory) else { return nil }
    let known = Set(missing).union(shards.names)
    guard index.files.allSatisfy(known.contains) else { return nil }
    let others = missing.count > 1 ? " and \(missing.count - 1) more" : ""
    return (
      shards,
      "names '\(first.printable(limit: 256))'\(others), which is not there; the \(shards.names.count) shards that are "
        + "('\(shards.names[0].printable(limit: 256))' …) are complete by their numbers, and their headers count"
    )
  }

  private static func readIndex(_ name: String, in directory: InputDirectory) throws(Failure) -> ShardIndex {
    let file = try directory.open(name)
    do throws(Failure) {
      let bytes = try file.contents(limit: ShardIndex.sizeLimit)
      do throws(Failure) { return try ShardIndex(parsing: bytes) } catch { throw Failure.noJSON(bytes) ?? error }
    } catch { throw error.located(file: name) }
  }

  private init(
    _ assembly: CheckpointAssembly, path: String, directory: InputDirectory?, indexName: String?, pool: FilePool,
    fault: (file: String, text: String)? = nil
  ) {
    self.path = path
    self.directory = directory
    self.indexName = indexName
    files = assembly.files
    tensors = assembly.tensors
    warnings = assembly.warnings
    offsets = assembly.offsets
    order = assembly.order
    self.pool = pool
    indexFault = fault
  }

  /// The metadata of the first file; most checkpoints have the same in all.
  public var metadata: [(key: String, value: String)] { files.first?.metadata ?? [] }

  /// The position in `tensors` of a name.
  public func index(of name: TensorName) -> Int? {
    order.position(of: name.string) { tensors[$0].name.string }
  }

  /// The file that holds a tensor and the offset in it of the tensor's first byte.
  public func location(of index: Int) -> (file: String, offset: Int) {
    (files[fileIndex(of: index)].name, offsets[index])
  }

  /// The open file that holds a tensor and the offset in it of the tensor's first byte.
  public func place(of index: Int) throws(Failure) -> (file: InputFile, offset: Int) {
    (try pool.file(fileIndex(of: index)), offsets[index])
  }

  /// The position in `files` of the file that holds a tensor.
  public func fileIndex(of index: Int) -> Int {
    precondition(tensors.indices.contains(index), "no tensor \(index)")
    return files.position(ofTensor: index)
  }

  public func read(
    _ index: Int, at offset: Int, into destination: inout MutableRawSpan
  ) throws(Failure) {
    let tensor = tensors[index]
    guard offset >= 0, destination.byteCount <= tensor.byteCount - offset else {
      throw Failure(
        .internal, "\(destination.byteCount) bytes at \(offset) are outside the tensor's \(tensor.byteCount)",
        tensor: tensor.name.string)
    }
    do throws(Failure) {
      try pool.file(fileIndex(of: index)).read(at: offsets[index] + offset, into: &destination)
    } catch { throw error.located(tensor: tensor.name.string) }
  }

  /// One of `files`, open.
  public func open(_ fileIndex: Int) throws(Failure) -> InputFile { try pool.file(fileIndex) }

  /// Device, inode and times of every file, as when it was opened.
  public var identities: [FileIdentity] { pool.identities }

  /// - Throws: `io` when a file is no longer what it was when it was opened.
  public func checkUnchanged() throws(Failure) {
    for index in files.indices { try pool.file(index).checkUnchanged() }
  }
}
