public import Bytes
public import Tensors

/// A model in GGUF form: one file, or the files of a split. Opening reads the headers, no data.
public final class GGUFCheckpoint: Sendable {
  /// One file of the checkpoint.
  public struct File: Sendable {
    public let name: String
    /// The file's size in bytes.
    public let size: Int
    /// Offset of the first data byte.
    public let dataStart: Int
    public let version: UInt32
    public let alignment: Int
    /// Positions in `tensors` of what the file holds.
    public let tensors: Range<Int>
  }

  /// The path as the user named it.
  public let path: String
  /// The files in the order of the split.
  public let files: [File]
  /// The metadata of the first file, with the keys of the split.
  public let metadata: GGUFMetadata
  /// The tensors file by file, in the order of their data.
  public let tensors: [GGUFTensor]
  /// Findings that are worth knowing and no errors, one line each.
  public let warnings: [Warning]
  /// The directory that holds the files of a split, or that the user named; nil for a single file.
  public let directory: InputDirectory?

  private let offsets: [Int]
  private let order: KeyOrder
  private let pool: FilePool

  /// Opens a file, any file of a split, or a directory that holds one model.
  ///
  /// - Throws: `missing` when something that should be there is not; `malformed` when it is inconsistent;
  ///   `unsupported` when it is a file of another kind.
  public init(path: String) throws(Failure) {
    self.path = path
    let split = try GGUFSplit(path: path)
    directory = split.directory
    pool = split.pool
    var files: [File] = []
    var tensors: [GGUFTensor] = []
    var offsets: [Int] = []
    var warnings: [Warning] = []
    var metadata = GGUFMetadata()
    for number in split.names.indices {
      let file = try pool.file(number)
      let header = try GGUFHeader(of: file)
      try split.check(header, number: number, file: file.name)
      if number == 0 { metadata = header.metadata }
      let first = tensors.count
      tensors += header.tensors
      offsets += header.tensors.indices.map { header.range(of: $0).lowerBound }
      warnings += header.warnings.map { "\(list: [file.name]): \($0)" }
      files.append(
        File(
          name: file.name, size: file.size, dataStart: header.dataStart, version: header.version,
          alignment: header.alignment, tensors: first..<tensors.count))
    }
    order = KeyOrder(count: tensors.count) { tensors[$0].name.string }
    if let (_, second) = order.firstDuplicate {
      throw Failure(.malformed, "the tensor is in more than one file of the split", tensor: tensors[second].name.string)
    }
    if let declared = try metadata.integer(GGUFSplit.tensorCountKey), declared != tensors.count {
      throw Failure(
        .malformed, "\(GGUFSplit.tensorCountKey) is \(declared), the files hold \(counted(tensors.count, "tensor"))",
        file: files[0].name)
    }
    self.files = files
    self.metadata = metadata
    self.tensors = tensors
    self.offsets = offsets
    self.warnings = Warning.grouped(warnings)
  }

  /// The position in `tensors` of a name.
  public func index(of name: TensorName) -> Int? {
    order.position(of: name.string) { tensors[$0].name.string }
  }

  /// The position in `files` of the file that holds a tensor.
  public func fileIndex(of index: Int) -> Int {
    files.firstIndex { $0.tensors.contains(index) } ?? 0
  }

  /// The file that holds a tensor and the offset in it of the tensor's first byte.
  public func location(of index: Int) -> (file: String, offset: Int) {
    (files[fileIndex(of: index)].name, offsets[index])
  }

  /// The open file that holds a tensor and the offset in it of the tensor's first byte.
  public func place(of index: Int) throws(Failure) -> (file: InputFile, offset: Int) {
    (try pool.file(fileIndex(of: index)), offsets[index])
  }

  /// Copies bytes of one tensor, as they are stored. Safe to call from several threads at once.
  ///
  /// - Parameters:
  ///   - index: position in `tensors`.
  ///   - offset: first byte wanted, counted from the tensor's own start.
  ///   - destination: filled completely; `offset + destination.byteCount` must not pass the tensor's end.
  /// - Throws: `io` when reading fails or the file has changed.
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

  /// The file that holds a tensor as memory, for access without copies.
  public func map(_ fileIndex: Int) throws(Failure) -> MappedFile { try pool.file(fileIndex).map() }

  /// One of `files`, open.
  public func open(_ fileIndex: Int) throws(Failure) -> InputFile { try pool.file(fileIndex) }

  /// Device, inode and times of every file, as when it was opened.
  public var identities: [FileIdentity] { pool.identities }

  /// - Throws: `io` when a file is no longer what it was when it was opened.
  public func checkUnchanged() throws(Failure) {
    for index in files.indices { try pool.file(index).checkUnchanged() }
  }
}
