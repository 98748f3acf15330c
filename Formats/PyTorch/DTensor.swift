import Bytes
import Tensors

/// A rank's part of a tensor that processes share, as `torch.save` writes a DTensor.
struct DTensor {
  /// What is done with the tensor along one dimension of the processes' mesh.
  enum Placement: Equatable {
    case shard(Int)
    case replicate
  }

  let local: PyTorchTensor
  /// Of the whole.
  let shape: [Int]
  let placements: [Placement]
  /// Of the rank in the mesh, for each of its dimensions; nil where the file does not say.
  let coordinates: [Int]?
}

extension PyTorchArchive {
  private static let wrapper = "torch._tensor._rebuild_from_type_v2"

  /// - Returns: nil for a tensor that is no DTensor.
  /// - Throws: `unsupported` where ranks have sums or strides, `malformed` for one without what DTensors have.
  func dtensor(of reference: PickleGraph.Reference, named name: TensorName) throws(Failure) -> DTensor? {
    guard let call = graph.call(reference), call.name == Self.wrapper, call.arguments.count == 4,
      graph.name(call.arguments[1])?.hasSuffix(".DTensor") == true
    else { return nil }
    do throws(Failure) {
      return try dtensor(call, name)
    } catch { throw error.located(file: slice.file.name, tensor: name.string) }
  }

  /// `(_rebuild_wrapper_subclass, DTensor, (DTensor, dtype, shape, …), (None, {"_local_tensor": …, "_spec": …}))`.
  private func dtensor(_ call: Call, _ name: TensorName) throws(Failure) -> DTensor {
    let states = [call.arguments[3]] + (graph.items(call.arguments[3]) ?? [])
    guard let arguments = graph.items(call.arguments[2]), arguments.count > 2,
      let slots = states.first(where: { graph.value(of: "_local_tensor", in: $0) != nil }),
      let local = graph.value(of: "_local_tensor", in: slots),
      let spec = graph.value(of: "_spec", in: slots).flatMap(graph.state),
      let placed = graph.value(of: "placements", in: spec).flatMap(graph.items)
    else { throw wrongArguments(call) }
    let shape = try sizes(arguments[2], "shape")
    var placements: [DTensor.Placement] = []
    for placement in placed { placements.append(try self.placement(placement, rank: shape.count)) }
    let mesh = graph.value(of: "mesh", in: spec).flatMap(graph.state)
    let coordinates = mesh.flatMap { graph.value(of: "_coordinate_on_dim", in: $0) }.flatMap(graph.items)?
      .compactMap(graph.integer)
    return DTensor(
      local: try tensor(of: local, named: name), shape: shape, placements: placements, coordinates: coordinates)
  }

  private func placement(_ reference: PickleGraph.Reference, rank: Int) throws(Failure) -> DTensor.Placement {
    let type = graph.call(reference)?.name.split(separator: ".").last.map(String.init) ?? ""
    switch type {
    case "Replicate": return .replicate
    case "Shard":
      guard let state = graph.state(reference), let axis = graph.value(of: "dim", in: state).flatMap(graph.integer),
        (0..<rank).contains(axis)
      else { throw Failure(.malformed, "is divided along a dimension that it does not have") }
      return .shard(axis)
    default:
      throw Failure(
        .unsupported,
        "is divided as '\(type.printable(limit: 64))', read are Shard and Replicate: save it with full_tensor()")
    }
  }
}
