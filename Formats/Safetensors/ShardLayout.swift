public import Bytes
import JSON
public import Tensors

/// Where every byte of a checkpoint goes: decided from names, types and shapes alone, before any data.
public struct ShardLayout: Sendable {
  /// One file to be written: `header`, then the data of `tensors` in their order.
  public struct Shard: Sendable {
    public let name: String
    /// Length, JSON and padding, complete; its end is a multiple of 4096.
    public let header: [UInt8]
    public let tensors: [TensorInfo]
    /// For each of `tensors` the offset in the file of its first byte.
    public let offsets: [Int]
    /// Bytes of the whole file.
    public let size: Int

    init(name: String, tensors: [TensorInfo], metadata: [(key: String, value: String)]) throws(Failure) {
      do throws(Failure) {
        header = try HeaderEncoder.encode(tensors, metadata: metadata)
      } catch { throw error.located(file: name) }
      var offsets: [Int] = []
      offsets.reserveCapacity(tensors.count)
      var end = header.count
      for tensor in tensors {
        offsets.append(end)
        let (next, overflowed) = end.addingReportingOverflow(tensor.byteCount)
        if overflowed { throw Failure(.malformed, "the file's size overflows", file: name, tensor: tensor.name.string) }
        end = next
      }
      self.name = name
      self.tensors = tensors
      self.offsets = offsets
      size = end
    }
  }

  public let shards: [Shard]
  /// Bytes of all tensors, without headers.
  public let dataSize: Int
  /// Bytes of all shards, with headers.
  public let size: Int
  private let stem: String

  /// Packs tensors into shards in the order given.
  ///
  /// Layers and groups stay together as `ShardPacker` says.
  ///
  /// - Parameters:
  ///   - layers: for each layer its groups of tensors.
  ///   - maxShardSize: bytes of data per shard, headers not counted.
  ///   - metadata: for every shard's header.
  ///   - stem: what the files' names begin with.
  /// - Throws: `malformed` when a name occurs twice or sizes overflow.
  public init(
    layers: [[[TensorInfo]]], maxShardSize: Int, metadata: [(key: String, value: String)] = [("format", "pt")],
    stem: String = "model"
  ) throws(Failure) {
    var packer = ShardPacker(limit: ShardPacker.Size(bytes: max(1, maxShardSize), tensors: Int.max))
    var parts: [[TensorInfo]] = [[]]
    for layer in layers {
      var sizes: [ShardPacker.Size] = []
      for group in layer {
        sizes.append(ShardPacker.Size(bytes: try Self.sum(group.map(\.byteCount)), tensors: group.count))
      }
      for (group, begins) in zip(layer, try packer.add(sizes)) {
        if begins { parts.append([]) }
        parts[parts.count - 1] += group
      }
    }
    var shards: [Shard] = []
    for (index, part) in parts.enumerated() {
      let name = Self.shardName(index, of: parts.count, stem: stem)
      shards.append(try Shard(name: name, tensors: part, metadata: metadata))
    }
    self.stem = stem
    self.shards = shards
    dataSize = try Self.sum(shards.map { $0.size - $0.header.count })
    size = try Self.sum(shards.map(\.size))
    let names = shards.flatMap { $0.tensors.map(\.name.string) }
    if let (first, _) = KeyOrder(names).firstDuplicate {
      throw Failure(.malformed, "two tensors to be written have this name", tensor: names[first])
    }
  }

  /// `model.safetensors` for the only shard, else `model-00001-of-00003.safetensors`.
  public static func shardName(_ index: Int, of count: Int, stem: String = "model") -> String {
    ShardName.text(stem: stem, number: index + 1, of: count)
  }

  /// The file that the index is written to; nil when there is one shard, which needs none.
  public var indexName: String? { shards.count > 1 ? "\(stem).safetensors.index.json" : nil }

  /// The index as transformers writes it: `json.dumps(…, indent=2, sort_keys=True)` and a line break.
  ///
  /// - Parameter totalParameters: the model's logical parameters.
  public func indexText(totalParameters: Int? = nil) -> String {
    var names: [String] = []
    var files: [String] = []
    for shard in shards {
      for tensor in shard.tensors {
        names.append(tensor.name.string)
        files.append(shard.name)
      }
    }
    var writer = JSONWriter()
    writer.beginObject(.indented)
    writer.key("metadata")
    writer.beginObject(.indented)
    if let totalParameters { writer.member("total_parameters", totalParameters) }
    writer.member("total_size", dataSize)
    writer.end()
    writer.key("weight_map")
    writer.beginObject(.indented)
    for position in KeyOrder(names).positions { writer.member(names[Int(position)], files[Int(position)]) }
    writer.end()
    writer.end()
    return String(decoding: writer.bytes, as: UTF8.self) + "\n"
  }

  private static func sum(_ sizes: [Int]) throws(Failure) -> Int {
    var total = 0
    for size in sizes {
      let (next, overflowed) = total.addingReportingOverflow(size)
      if overflowed { throw Failure(.malformed, "the sizes of the tensors to be written overflow") }
      total = next
    }
    return total
  }
}
