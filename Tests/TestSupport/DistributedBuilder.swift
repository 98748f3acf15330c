/// `.metadata` of `torch.distributed.checkpoint`, put together by hand.
public enum DistributedBuilder {
  public struct Chunk: Sendable {
    public var offsets: [Int]
    public var sizes: [Int]
    public var file: String
    public var offset: Int
    public var length: Int
    public var transforms: [String] = []

    public init(_ offsets: [Int], _ sizes: [Int], _ file: String, at offset: Int = 0, length: Int) {
      self.offsets = offsets
      self.sizes = sizes
      self.file = file
      self.offset = offset
      self.length = length
    }
  }

  public struct Tensor: Sendable {
    public var name: String
    public var dtype: String
    public var shape: [Int]
    public var chunks: [Chunk]

    public init(_ name: String, _ dtype: String, _ shape: [Int], _ chunks: [Chunk]) {
      self.name = name
      self.dtype = dtype
      self.shape = shape
      self.chunks = chunks
    }
  }

  private static let module = "torch.distributed.checkpoint.metadata"

  public static func metadata(_ tensors: [Tensor]) -> [UInt8] {
    let listed = tensors.map { tensor -> (String, [UInt8]) in
      let properties =
        Pickle.global(module, "TensorProperties") + [0x29, 0x81]
        + Pickle.tuple([Pickle.global("torch", tensor.dtype), Pickle.none]) + [0x62]
      let chunks = tensor.chunks.map {
        Pickle.object(
          module, "ChunkStorageMetadata",
          [("offsets", ZeROBuilder.size($0.offsets)), ("sizes", ZeROBuilder.size($0.sizes))])
      }
      return (
        tensor.name,
        Pickle.object(
          module, "TensorStorageMetadata",
          [("properties", properties), ("size", ZeROBuilder.size(tensor.shape)), ("chunks", Pickle.list(chunks))])
      )
    }
    var places: [UInt8] = [0x7D, 0x28]
    for tensor in tensors {
      for chunk in tensor.chunks {
        places += Pickle.object(
          module, "MetadataIndex", [("fqn", Pickle.text(tensor.name)), ("offset", ZeROBuilder.size(chunk.offsets))])
        var place: [(String, [UInt8])] = [
          ("relative_path", Pickle.text(chunk.file)), ("offset", Pickle.integer(chunk.offset)),
          ("length", Pickle.integer(chunk.length)),
        ]
        if !chunk.transforms.isEmpty {
          place.append(("transform_descriptors", Pickle.list(chunk.transforms.map { Pickle.text($0) })))
        }
        places += Pickle.object("torch.distributed.checkpoint.filesystem", "_StorageInfo", place)
      }
    }
    return Pickle.whole(
      Pickle.object(
        module, "Metadata",
        [("state_dict_metadata", Pickle.dictionary(listed)), ("storage_data", places + [0x75])]))
  }
}
