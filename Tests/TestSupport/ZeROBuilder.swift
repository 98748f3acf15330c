/// Files as DeepSpeed saves them, put together by hand.
public enum ZeROBuilder {
  /// A tensor in a file, in a storage of its own.
  public struct Tensor: Sendable {
    let shape: [Int]
    let storage: String
    let count: Int
    let data: [UInt8]

    public static func float32(_ values: [Float], _ shape: [Int]? = nil) -> Tensor {
      Tensor(
        shape: shape ?? [values.count], storage: "FloatStorage", count: values.count,
        data: values.flatMap { Pickle.little($0.bitPattern, 4) })
    }

    /// What bfloat16 has exactly.
    public static func bfloat16(_ values: [Float], _ shape: [Int]? = nil) -> Tensor {
      Tensor(
        shape: shape ?? [values.count], storage: "BFloat16Storage", count: values.count,
        data: values.flatMap { Pickle.little($0.bitPattern >> 16, 2) })
    }

    /// In place of one that is divided.
    public static let empty = bfloat16([])

    public var bytes: [UInt8] { data }

    var vector: Tensor { Tensor(shape: [count], storage: storage, count: count, data: data) }
  }

  /// A file while its values are being written.
  public struct File {
    private var storages: [(key: String, data: [UInt8])] = []

    public init() {}

    public mutating func tensor(_ tensor: Tensor) -> [UInt8] {
      let key = "\(storages.count)"
      storages.append((key, tensor.data))
      return Pickle.tensor(Pickle.storage(tensor.count, tensor.storage, key: key), tensor.shape)
    }

    public mutating func tensors(_ tensors: [(String, Tensor)]) -> [UInt8] {
      Pickle.dictionary(tensors.map { ($0.0, tensor($0.1)) })
    }

    public func bytes(_ entries: [(String, [UInt8])]) -> [UInt8] {
      TorchBuilder.zip(Pickle.whole(Pickle.dictionary(entries)), storages)
    }
  }

  public static func size(_ shape: [Int]) -> [UInt8] { Pickle.call("torch", "Size", [Pickle.integers(shape)]) }

  public static func shapes(_ shapes: [(String, [Int])]) -> [UInt8] {
    Pickle.dictionary(shapes.map { ($0.0, size($0.1)) })
  }

  /// A file of the module.
  public struct Model {
    public var module: [(String, Tensor)] = []
    /// More names in the module, each for the storage of one in it.
    public var repeated: [(String, of: String)] = []
    public var buffers: [String] = []
    public var groups: [[(String, [Int])]]?
    public var frozenShapes: [(String, [Int])]?
    public var fragments: [(String, Tensor)] = []
    public var shared: [(String, String)] = []
    public var parts = 1
    public var more: [(String, [UInt8])] = []

    public init() {}

    public var bytes: [UInt8] {
      var file = File()
      let fragments = frozenShapes == nil ? Pickle.none : file.tensors(self.fragments)
      var entries = module.map { ($0.0, file.tensor($0.1)) }
      for (name, original) in repeated {
        entries += entries.filter { $0.0 == original }.map { (name, $0.1) }
      }
      return file.bytes(
        [
          ("module", Pickle.dictionary(entries)), ("buffer_names", Pickle.list(buffers.map { Pickle.text($0) })),
          ("param_shapes", groups.map { Pickle.list($0.map { shapes($0) }) } ?? Pickle.none),
          ("frozen_param_shapes", frozenShapes.map { shapes($0) } ?? Pickle.none),
          ("frozen_param_fragments", fragments),
          ("shared_params", Pickle.dictionary(shared.map { ($0.0, Pickle.text($0.1)) })),
          ("mp_world_size", Pickle.integer(parts)), ("ds_version", Pickle.text("0.19.8")),
        ] + more)
    }
  }

  /// A file of a rank's optimizer.
  ///
  /// - Parameter counts: of ranks, for each group; one for all where there is one.
  public static func optimizer(
    stage: Int, counts: [Int], _ vectors: [Tensor], key: String? = nil, paddings: [[Int]]? = nil
  ) -> [UInt8] {
    var file = File()
    let vectors = Pickle.list(vectors.map { file.tensor($0) })
    let counted = counts.map { Pickle.integer($0) }
    let moments = file.tensors([("exp_avg", .float32([7, 7, 7]))])
    var states: [(String, [UInt8])] = [
      ("loss_scaler", Pickle.call("deepspeed.runtime.fp16.loss_scaler", "LossScaler", [])),
      ("base_optimizer_state", moments),
      (
        "zero_stage",
        Pickle.call("deepspeed.runtime.zero.config", "ZeroStageEnum", [Pickle.integer(stage)])
      ),
      ("partition_count", counts.count == 1 ? counted[0] : Pickle.list(counted)),
      (key ?? (stage == 3 ? "fp32_flat_groups" : "single_partition_of_fp32_groups"), vectors),
    ]
    if let paddings {
      states.append(
        ("param_alignment_paddings", Pickle.list(paddings.map { Pickle.list($0.map { Pickle.integer($0) }) })))
    }
    return file.bytes([("optimizer_state_dict", Pickle.dictionary(states)), ("ds_version", Pickle.text("0.19.8"))])
  }

  /// A parameter of a universal checkpoint.
  ///
  /// - Parameter isVector: as of stage 3, without a dictionary around it and without its shape.
  public static func parameter(_ tensor: Tensor, isVector: Bool = false) -> [UInt8] {
    var file = File()
    let value = file.tensor(isVector ? tensor.vector : tensor)
    return isVector ? TorchBuilder.zip(Pickle.whole(value), [("0", tensor.data)]) : file.bytes([("param", value)])
  }
}
