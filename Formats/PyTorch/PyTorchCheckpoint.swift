public import Bytes
public import Tensors

/// The tensors of a model in files of `torch.save`: one file, or a directory with one or with an index and its shards.
/// Opening reads the pickles, no data.
///
/// Index and shards have been checked against each other: every tensor is in exactly the one file that the index names,
/// and the index names every tensor.
public final class PyTorchCheckpoint: TensorSource {
  /// One file of the checkpoint.
  public struct File: Sendable {
    public let name: String
    /// The file's size in bytes.
    public let size: Int
    /// Positions in `tensors` of what the file holds, in the order of its data.
    public let tensors: Range<Int>
    /// The key under which the tensors stand in the file; nil for none.
    public let root: String?
    /// Entries beside the tensors.
    public let ignored: [String]
  }

  /// The names of tensors and the files that an index puts them into.
  public typealias WeightMap = [(name: String, file: String)]

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
  /// Positions in `tensors` of those that are the very same view, two or more at a time.
  public let tied: [[Int]]

  private let views: [PyTorchTensor]
  private let order: KeyOrder
  private let pool: FilePool

  /// Opens a directory or a file, known by its content.
  ///
  /// - Parameter index: what an index says; called when there is one, with the file.
  /// - Throws: `missing` when something that should be there is not, naming the shard and a tensor; `malformed` when it
  ///   is inconsistent; `unsupported` when it is a checkpoint of another kind.
  public convenience init(path: String, index: (InputFile) throws(Failure) -> WeightMap) throws(Failure) {
    if InputDirectory.exists(at: path) {
      try self.init(directory: InputDirectory(path: path), index: index)
      return
    }
    let file = try HubCache.openModel(at: path)
    var assembly = PyTorchAssembly()
    try assembly.add(file)
    try self.init(assembly, path: path, directory: nil, indexName: nil, pool: FilePool(file: file))
  }

  /// Whether a directory may hold one, by the names of its files.
  public static func isThere(among names: [String]) -> Bool { PyTorchChoice.isThere(among: names) }

  /// Whether files of a directory go by the names of a whole model's.
  public static func isModelThere(among names: [String]) -> Bool { PyTorchChoice.isModelThere(among: names) }

  /// Opens the checkpoint in a directory.
  public convenience init(
    directory: InputDirectory, index: (InputFile) throws(Failure) -> WeightMap
  ) throws(Failure) {
    let choice = try PyTorchChoice(in: directory)
    var names: [String]
    var indexName: String?
    var map: PyTorchIndex?
    switch choice {
    case .file(let name): names = [name]
    case .shards(let shards): names = shards
    case .index(let name):
      do throws(Failure) {
        map = try PyTorchIndex(index(directory.open(name)), name: name)
      } catch { throw error.located(file: name) }
      indexName = name
      names = map?.files ?? []
      try map?.checkFiles(in: directory)
    }
    let pool = FilePool(directory: directory, names: names)
    var assembly = PyTorchAssembly()
    for number in names.indices { try assembly.add(pool.file(number)) }
    try assembly.finish()
    try map?.check(assembly)
    try self.init(assembly, path: directory.path, directory: directory, indexName: indexName, pool: pool)
  }

  private init(
    _ assembly: PyTorchAssembly, path: String, directory: InputDirectory?, indexName: String?, pool: FilePool
  ) throws(Failure) {
    var assembly = assembly
    try assembly.finish()
    self.path = path
    self.directory = directory
    self.indexName = indexName
    files = assembly.files
    views = assembly.views
    tensors = assembly.views.map(\.info)
    tied = assembly.tied
    order = assembly.order
    warnings = assembly.warnings
    self.pool = pool
  }

  /// The position in `tensors` of a name.
  public func index(of name: TensorName) -> Int? { order.position(of: name.string) { tensors[$0].name.string } }

  /// The position in `files` of the file that holds a tensor.
  public func fileIndex(of index: Int) -> Int {
    precondition(tensors.indices.contains(index), "no tensor \(index)")
    return files.position(ofTensor: index)
  }

  /// How a tensor lies in its file.
  public func view(of index: Int) -> PyTorchTensor { views[index] }

  /// The file that holds a tensor and the offset in it of the tensor's first byte.
  public func location(of index: Int) -> (file: String, offset: Int) {
    (files[fileIndex(of: index)].name, views[index].start)
  }

  /// The open file that holds a tensor and the offset in it of the tensor's first byte; nil when its bytes are not one
  /// piece of the file, in order.
  public func place(of index: Int) throws(Failure) -> (file: InputFile, offset: Int)? {
    guard let range = views[index].range else { return nil }
    return (try pool.file(fileIndex(of: index)), range.lowerBound)
  }

  public func read(_ index: Int, at offset: Int, into destination: inout MutableRawSpan) throws(Failure) {
    do throws(Failure) {
      try views[index].read(from: pool.file(fileIndex(of: index)), at: offset, into: &destination)
    } catch { throw error.located(tensor: tensors[index].name.string) }
  }

  public func storedByteCount(of index: Int) -> Int { views[index].storedByteCount }

  /// One of `files`, open.
  public func open(_ fileIndex: Int) throws(Failure) -> InputFile { try pool.file(fileIndex) }

  /// Device, inode and times of every file, as when it was opened.
  public var identities: [FileIdentity] { pool.identities }

  /// - Throws: `io` when a file is no longer what it was when it was opened.
  public func checkUnchanged() throws(Failure) {
    for index in files.indices { try pool.file(index).checkUnchanged() }
  }
}
