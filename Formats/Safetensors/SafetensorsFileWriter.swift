public import Bytes
public import Tensors

/// Writes one safetensors file from a plan: the header first, then the tensors' bytes in any order.
///
/// The file appears under its name with `commit()`, complete and durable, or not at all.
public struct SafetensorsFileWriter: ~Copyable {
  public let shard: ShardLayout.Shard
  private let staged: StagedFiles
  private let file: OutputFile
  /// Bytes of each tensor still to come.
  private var missing: [Int]

  /// - Parameters:
  ///   - path: of the file to create.
  ///   - tensors: everything it will hold, in the order of storage.
  ///   - metadata: the pairs of `__metadata__`.
  ///   - replacing: whether a file of that name may be replaced.
  /// - Throws: `malformed` when a name occurs twice; `cannotCreate` when the name is taken or its place cannot be
  ///   written; `locked` when another writer has it; `io` when the device fails.
  public init(
    path: String, tensors: [TensorInfo], metadata: [(key: String, value: String)] = [("format", "pt")],
    replacing: Bool = false
  ) throws(Failure) {
    let layout = try ShardLayout(layers: [[tensors]], maxShardSize: Int.max, metadata: metadata)
    let shard = layout.shards[0]
    let name = FileName.last(of: path)
    let staged = try StagedFiles(path: path, names: [name], replacing: replacing)
    let file = try staged.files.create(name)
    try file.append(shard.header)
    try file.extend(to: shard.size)
    self.shard = shard
    self.staged = staged
    self.file = file
    missing = tensors.map(\.byteCount)
  }

  /// Writes some bytes of one tensor. Each byte is to be written once.
  ///
  /// - Parameters:
  ///   - index: position in the tensors given to `init`.
  ///   - offset: first byte, counted from the tensor's own start.
  public mutating func write(_ index: Int, at offset: Int = 0, _ bytes: RawSpan) throws(Failure) {
    let tensor = shard.tensors[index]
    guard offset >= 0, bytes.byteCount <= tensor.byteCount - offset, bytes.byteCount <= missing[index] else {
      throw Failure(
        .internal,
        "\(bytes.byteCount) bytes at \(offset) are more than the tensor's \(tensor.byteCount) bytes, "
          + "\(missing[index]) of them to come", file: file.name, tensor: tensor.name.string)
    }
    try file.overwrite(at: shard.offsets[index] + offset, bytes)
    missing[index] -= bytes.byteCount
  }

  /// Writes a whole tensor.
  public mutating func write(_ index: Int, _ bytes: [UInt8]) throws(Failure) {
    guard bytes.count == shard.tensors[index].byteCount else {
      throw Failure(
        .internal, "\(bytes.count) bytes for a tensor of \(shard.tensors[index].byteCount)", file: file.name,
        tensor: shard.tensors[index].name.string)
    }
    try write(index, at: 0, bytes.span.rawBytes)
  }

  /// Makes the file durable and visible.
  ///
  /// - Throws: `internal` when bytes of a tensor were never written; `cannotCreate` when the name has been taken since;
  ///   `io` when the device fails.
  public consuming func commit() throws(Failure) {
    if let index = missing.firstIndex(where: { $0 > 0 }) {
      throw Failure(
        .internal, "\(missing[index]) bytes were not written", file: file.name, tensor: shard.tensors[index].name.string
      )
    }
    try file.finish()
    try staged.commit()
  }
}
