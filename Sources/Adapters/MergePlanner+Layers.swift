import Bytes
import Safetensors
import Tensors

extension MergePlanner {
  /// `layer_replication`: the model that was trained repeats layers of the base.
  mutating func replicateLayers() throws(Failure) {
    let wanted = adapters.filter { !$0.configuration.layerReplication.isEmpty }
    guard let first = wanted.first else { return }
    let ranges = first.configuration.layerReplication
    guard wanted.count == adapters.count, wanted.allSatisfy({ $0.configuration.layerReplication == ranges }) else {
      throw Failure(
        .malformed, "the adapters do not agree in layer_replication: they were trained on different models",
        file: first.path)
    }
    guard let stack = mainStack() else {
      throw Failure(
        .unsupported, "has layer_replication, but the base's layers are not to be found by name", file: first.path)
    }
    let layers = ranges.flatMap { Array($0) }
    if let beyond = layers.first(where: { $0 >= stack.count }) {
      throw Failure(
        .malformed, "layer_replication names layer \(beyond), the base has \(stack.count)",
        file: "\(first.path)/\(Adapter.configName)")
    }
    let numbers = slots.map { Self.layer(of: $0.parameter, in: stack.prefix)?.number }
    var byLayer: [Int: [Slot]] = [:]
    for (slot, number) in zip(slots, numbers) {
      if let number { byLayer[number, default: []].append(slot) }
    }
    var result: [Slot] = []
    var isDone = false
    for (slot, number) in zip(slots, numbers) {
      guard number != nil else {
        result.append(slot)
        continue
      }
      if isDone { continue }
      isDone = true
      for (new, old) in layers.enumerated() {
        for slot in byLayer[old] ?? [] {
          var copy = slot
          copy.parameter = Self.renumbered(slot.parameter, new) ?? slot.parameter
          copy.name = TensorName(Self.renumbered(slot.name.string, new) ?? slot.name.string)
          result.append(copy)
          guard result.count <= SafetensorsHeader.tensorLimit else {
            throw Failure(
              .malformed, "layer_replication makes more than \(SafetensorsHeader.tensorLimit) tensors", file: first.path
            )
          }
        }
      }
    }
    slots = result
    replicatedLayers = layers
    warnings.append("layers are replicated: the base's \(stack.count) become \(layers.count)")
  }

  /// The longest list of layers.
  private func mainStack() -> (prefix: String, count: Int)? {
    var highest: [String: Int] = [:]
    for slot in slots {
      guard let (prefix, number) = Self.firstNumber(in: slot.parameter) else { continue }
      highest[prefix] = max(highest[prefix] ?? 0, number + 1)
    }
    return highest.max { ($0.value, $1.key) < ($1.value, $0.key) }.map { ($0.key, $0.value) }
  }

  private static func firstNumber(in name: String) -> (prefix: String, number: Int)? {
    let parts = name.split(separator: ".", omittingEmptySubsequences: false)
    guard let at = parts.firstIndex(where: { Int($0) != nil }), at > 0, let number = Int(parts[at]), number >= 0,
      number < 100_000
    else { return nil }
    return (parts[..<at].joined(separator: "."), number)
  }

  private static func layer(of name: String, in prefix: String) -> (prefix: String, number: Int)? {
    firstNumber(in: name).flatMap { $0.prefix == prefix ? $0 : nil }
  }

  private static func renumbered(_ name: String, _ number: Int) -> String? {
    var parts = name.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
    guard let at = parts.firstIndex(where: { Int($0) != nil }) else { return nil }
    parts[at] = String(number)
    return parts.joined(separator: ".")
  }
}
