/// Files of DTensors as ranks of FSDP save them, put together by hand.
public enum RankedBuilder {
  public enum Placement: Sendable {
    case shard(Int)
    case replicate
    case other(String)

    var bytes: [UInt8] {
      let module = "torch.distributed.tensor.placement_types"
      switch self {
      case .shard(let axis): return Pickle.object(module, "Shard", [("dim", Pickle.integer(axis))])
      case .replicate: return Pickle.object(module, "Replicate", [])
      case .other(let name): return Pickle.object(module, name, [("dim", Pickle.integer(0))])
      }
    }
  }

  /// A rank's part of a tensor.
  public struct Part: Sendable {
    public var name = "w"
    public var shape: [Int]
    public var placements: [Placement]
    /// Nil where the mesh does not say.
    public var coordinates: [Int]?
    public var local: ZeROBuilder.Tensor

    public init(
      _ shape: [Int], _ placements: [Placement], at coordinates: [Int]?, _ local: [Float], _ localShape: [Int]
    ) {
      self.shape = shape
      self.placements = placements
      self.coordinates = coordinates
      self.local = .float32(local, localShape)
    }
  }

  public static func file(_ parts: [Part], plain: [(String, ZeROBuilder.Tensor)] = [], more: [(String, [UInt8])] = [])
    -> [UInt8]
  {
    var file = ZeROBuilder.File()
    var entries: [(String, [UInt8])] = []
    for part in parts {
      let local = file.tensor(part.local)
      let mesh = part.coordinates.map { [("_coordinate_on_dim", Pickle.integers($0))] } ?? []
      let spec = Pickle.object(
        "torch.distributed.tensor._dtensor_spec", "DTensorSpec",
        [
          ("mesh", Pickle.object("torch.distributed.device_mesh", "DeviceMesh", mesh)),
          ("placements", Pickle.tuple(part.placements.map(\.bytes))),
        ])
      let type = Pickle.global("torch.distributed.tensor", "DTensor")
      entries.append(
        (
          part.name,
          Pickle.call(
            "torch._tensor", "_rebuild_from_type_v2",
            [
              Pickle.global("torch._utils", "_rebuild_wrapper_subclass"), type,
              Pickle.tuple([type, Pickle.global("torch", "float32"), Pickle.integers(part.shape)]),
              Pickle.tuple([Pickle.none, Pickle.dictionary([("_local_tensor", local), ("_spec", spec)])]),
            ])
        ))
    }
    entries += plain.map { ($0.0, file.tensor($0.1)) }
    return file.bytes(entries + more)
  }
}
