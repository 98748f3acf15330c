import Architectures
package import Bytes
package import JSON
package import Tensors

/// The way back: what mlx-lm's tensors are in the class of transformers. No class that has a row changes values, so
/// that names and arrangement are all there is to undo.
extension MLXFamily {
  /// Bounds what a header without data can ask for; the largest models have a tenth of it.
  private static let largestCount = 1 << 20

  /// - Parameters:
  ///   - tensors: of the model as mlx-lm has them, each weight whole.
  ///   - config: how many experts there are.
  /// - Throws: `malformed` for a stack that is none.
  package func originals(of tensors: [TensorInfo], config: JSONValue) throws(Failure) -> [PlannedWeight] {
    var weights: [PlannedWeight] = []
    for (index, info) in tensors.enumerated() {
      let name = info.name.string
      if let (module, projection) = stack(name) {
        let count = try expertCount(info, config)
        guard count <= Self.largestCount - weights.count else {
          throw Failure(
            .malformed, "and the stacks before it have more than \(Self.largestCount) experts", tensor: name)
        }
        for number in 0..<count {
          weights.append(
            PlannedWeight(
              name: TensorName(original("\(module).experts.\(number).\(projection).weight")),
              shape: Array(info.shape.dropFirst()), source: .part(of: index, index: number)))
        }
      } else {
        let isTurned = Self.isPath(name, transposed) && info.shape.count == 2
        weights.append(
          PlannedWeight(
            name: TensorName(original(name)), shape: isTurned ? info.shape.reversed() : info.shape,
            source: .stored(index), transform: isTurned ? .transpose : .none))
      }
    }
    return weights
  }

  /// The name in transformers; where several prefixes became the same one in mlx-lm, with the first of them.
  private func original(_ name: String) -> String {
    for (old, new) in prefixes where name.hasPrefix(new) { return old + name.dropFirst(new.count) }
    return name
  }

  /// `model.layers.0.mlp.switch_mlp.up_proj.weight` holds `up_proj` of `model.layers.0.mlp`, which transformers has
  /// under that name or another.
  private func stack(_ name: String) -> (module: String, projection: String)? {
    guard let experts else { return nil }
    let parts = name.split(separator: ".", omittingEmptySubsequences: false)
    guard parts.count > 3, parts[parts.count - 1] == "weight", parts[parts.count - 3] == "switch_mlp",
      let projection = experts.projections.first(where: { $0.value == parts[parts.count - 2] })?.key
    else { return nil }
    return (parts.dropLast(3).joined(separator: "."), projection)
  }

  private func expertCount(_ info: TensorInfo, _ config: JSONValue) throws(Failure) -> Int {
    let name = experts?.count ?? ""
    guard info.shape.count == 3, info.elementCount > 0 else {
      throw Failure(.malformed, "has shape \(info.shape), which is no stack of experts", tensor: info.name.string)
    }
    guard Self.member(name, in: config)?.int == info.shape[0] else {
      throw Failure(
        .malformed, "holds \(info.shape[0]) experts, and '\(name)' in \(ModelParameters.file) says otherwise",
        tensor: info.name.string)
    }
    return info.shape[0]
  }
}
