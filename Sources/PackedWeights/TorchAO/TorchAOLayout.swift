import Bytes
import JSON
import Quantization
import Tensors

/// The checkpoints of torchao in safetensors: a weight `M.weight` is in several tensors, `M._weight_qdata`,
/// `M._weight_scale` and others, and the header says under the weight's name of which class it is.
struct TorchAOLayout: PackedLayout {
  private let modules: [TensorName: TorchAOModule]
  /// Which entry of the header a part belongs to.
  private let parts: Set<TensorName>
  private let type: FloatType

  var name: String { "torchao" }

  init?(_ config: JSONValue?, of checkpoint: any StoredTensors) throws(Failure) {
    guard QuantizationSettings.stated(config)?.method == "torchao" else { return nil }
    type = try QuantizationSettings.weightType(config)
    var modules: [TensorName: TorchAOModule] = [:]
    var parts: Set<TensorName> = []
    for (key, value) in checkpoint.headerTexts where key.contains(".") {
      // Whatever else a header says is none of these.
      guard let entry = try? JSONValue(parsing: Array(value.utf8)), let kind = entry["_type"]?.string else { continue }
      let module = TorchAOModule(key, kind, entry)
      if module.isPlain { continue }
      modules[module.part("qdata")] = module
      for name in module.names { parts.insert(module.part(name)) }
    }
    if modules.isEmpty { return nil }
    self.modules = modules
    self.parts = parts
  }

  func weight(_ index: Int, in checkpoint: any StoredTensors) throws(Failure) -> (any PackedWeight)? {
    guard let module = modules[checkpoint.tensors[index].name] else { return nil }
    guard checkpoint.index(of: module.name) == nil else {
      throw Failure(.malformed, "is there beside '\(module.name)'")
    }
    return try TorchAOParts(module, index, in: checkpoint).weight(type)
  }

  func remainder(_ index: Int, in checkpoint: any StoredTensors) -> PackedRemainder {
    let name = checkpoint.tensors[index].name
    if name.string.split(separator: ".").last?.contains("_act_") == true, parts.contains(name) { return .leftOut }
    return parts.contains(name) || Self.isPart(name) ? .orphan : .plain
  }

  /// Whether the header ought to speak of it.
  private static func isPart(_ name: TensorName) -> Bool {
    guard let last = name.string.split(separator: ".").last, last.hasPrefix("_") else { return false }
    return ["_qdata", "_scale", "_zero_point", "_scale_and_zero"].contains { last.hasSuffix($0) }
  }
}

/// What a header says of one weight.
struct TorchAOModule: Sendable {
  let name: TensorName
  /// The class, such as `Int8Tensor`.
  let kind: String
  let data: JSONValue
  let names: [String]
  private let prefix: String

  /// - Parameter entry: the JSON that the header has under the weight's name.
  init(_ name: String, _ kind: String, _ entry: JSONValue) {
    self.name = TensorName(name)
    self.kind = kind
    data = entry["_data"] ?? .object([:])
    names = entry["_tensor_data_names"]?.array?.compactMap(\.string) ?? []
    let dot = name.lastIndex(of: ".") ?? name.startIndex
    prefix = name[..<dot] + "._" + name[name.index(after: dot)...] + "_"
  }

  /// Whether it is a tensor as any other.
  var isPlain: Bool { kind == "Tensor" }

  func part(_ name: String) -> TensorName { TensorName(prefix + name) }

  /// The dtype of the weight that is said under a key.
  func type(_ key: String) -> FloatType? {
    data[key]?["_data"]?.string.flatMap(FloatType.init(torchName:))
  }
}
