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
    var failure: Failure?
    unsafe shard.header.withUnsafeBytes { bytes in
      do throws(Failure) { try unsafe file.write(at: 0, bytes) } catch { failure = error }
    }
    if let failure { throw failure }
    self.shard = shard
    self.file = file
    missing = tensors.map(\.byteCount)
  }

  /// Writes some bytes of one tensor. Each byte is to be written once.
  ///
  /// - Parameters:
  ///   - index: position in the tensors given to `init`.
  ///   - offset: first byte, counted from the tensor's own start.
  public mutating func write(_ index: Int, at offset: Int = 0, _ bytes: UnsafeRawBufferPointer) throws(Failure) {
    let tensor = shard.tensors[index]
    guard offset >= 0, bytes.count <= tensor.byteCount - offset, bytes.count <= missing[index] else {
      throw Failure(
        .internal,
        "\(bytes.count) bytes at \(offset) are more than the tensor's \(tensor.byteCount) bytes, "
          + "\(missing[index]) of them to come", file: file.path, tensor: tensor.name.string)
    }
    try unsafe file.write(at: shard.offsets[index] + offset, bytes)
    missing[index] -= bytes.count
  }

  /// Writes a whole tensor.
  public mutating func write(_ index: Int, _ bytes: [UInt8]) throws(Failure) {
    guard bytes.count == shard.tensors[index].byteCount else {
      throw Failure(
        .internal, "\(bytes.count) bytes for a tensor of \(shard.tensors[index].byteCount)", file: file.path,
        tensor: shard.tensors[index].name.string)
    }
    var failure: Failure?
    unsafe bytes.withUnsafeBytes { bytes in
      do throws(Failure) { try unsafe write(index, at: 0, bytes) } catch { failure = error }
    }
    if let failure { throw failure }
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
