public import Bytes
public import Tensors

/// Writes one safetensors file from a plan: the header first, then the tensors' bytes in any order.
///
/// The file appears under its name with `commit()`, complete and durable, or not at all.
public struct SafetensorsFileWriter: ~Copyable {
  public let shard: ShardLayout.Shard
  private let file: AtomicFile
  /// Bytes of each tensor still to come.
  private var missing: [Int]

  /// - Parameters:
  ///   - path: of the file to create.
  ///   - tensors: everything it will hold, in the order of storage.
  ///   - metadata: the pairs of `__metadata__`.
  /// - Throws: `malformed` when a name occurs twice; `cannotCreate` or `io` from the file.
  public init(
    path: String, tensors: [TensorInfo], metadata: [(key: String, value: String)] = [("format", "pt")]
  ) throws(Failure) {
    let layout = try ShardLayout(layers: [[tensors]], maxShardSize: Int.max, metadata: metadata)
    let shard = layout.shards[0]
    let file = try AtomicFile(path: path, size: shard.size)
    try file.write(at: 0, shard.header.span.rawBytes)
    self.shard = shard
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
          + "\(missing[index]) of them to come", file: file.path, tensor: tensor.name.string)
    }
    try file.write(at: shard.offsets[index] + offset, bytes)
    missing[index] -= bytes.byteCount
  }

  /// Writes a whole tensor.
  public mutating func write(_ index: Int, _ bytes: [UInt8]) throws(Failure) {
    guard bytes.count == shard.tensors[index].byteCount else {
      throw Failure(
        .internal, "\(bytes.count) bytes for a tensor of \(shard.tensors[index].byteCount)", file: file.path,
        tensor: shard.tensors[index].name.string)
    }
    try write(index, at: 0, bytes.span.rawBytes)
  }

  /// Makes the file durable and visible.
  ///
  /// - Throws: `internal` when bytes of a tensor were never written; `cannotCreate` when the name is
  ///   taken and `replacing` is false.
  public consuming func commit(replacing: Bool = false) throws(Failure) {
    if let index = missing.firstIndex(where: { $0 > 0 }) {
      throw Failure(
        .internal, "\(missing[index]) bytes were not written", file: file.path, tensor: shard.tensors[index].name.string
      )
    }
    try file.commit(replacing: replacing)
  }
}
