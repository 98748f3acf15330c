import Bytes
import JSON
import Quantization
import Tensors

/// The checkpoints of AutoRound in 4 or 8 bits of floating point: tensors as in compressed-tensors, under settings of
/// its own. What it packs as GPTQ, AWQ or FP8 is theirs.
struct AutoRoundLayout: PackedLayout {
  private static let known = [
    "auto_round", "auto_round:auto_gptq", "auto_round:gptqmodel", "auto_round:auto_awq", "auto_round:fp8_static",
    "auto_round:llm_compressor",
  ]
  private static let packed = ".weight_packed"

  private let settings: JSONValue
  private let exceptions: AutoRoundExceptions
  private let type: FloatType

  var name: String { "AutoRound" }

  /// - Throws: also for what the layouts of others would read otherwise than it is meant.
  init?(_ config: JSONValue?, of checkpoint: any StoredTensors) throws(Failure) {
    guard AutoRoundPacking.isStated(config), let stated = QuantizationSettings.stated(config),
      // What is wrong with the settings is of no account where nothing is quantized.
      checkpoint.tensors.contains(where: { info in
        [".qweight", Self.packed, ".weight_scale", ".weight_scale_inv"].contains { info.name.hasSuffix($0) }
      })
    else { return nil }
    func refusal(_ text: String) -> Failure {
      Failure(.unsupported, "AutoRound: \(text)", file: QuantizationSettings.fileName)
    }
    if let rotation = stated.settings["rotation_config"], !rotation.isNull, rotation.object?.isEmpty != true {
      throw refusal("has a 'rotation_config': rotated weights are not read")
    }
    guard let packing = AutoRoundPacking(stated) else {
      let kind = stated.settings["data_type"]?.string ?? "int"
      throw refusal(
        "the packing_format '\(stated.settings["packing_format"]?.string ?? "")' of data_type '\(kind)' is not known "
          + "here; known are \(Self.known.joined(separator: ", "))")
    }
    guard packing == .floats else { return nil }
    settings = stated.settings
    exceptions = try AutoRoundExceptions(settings, file: QuantizationSettings.fileName)
    type = try QuantizationSettings.weightType(config)
  }

  func weight(_ index: Int, in checkpoint: any StoredTensors) throws(Failure) -> (any PackedWeight)? {
    let info = checkpoint.tensors[index]
    let isPacked = info.name.hasSuffix(Self.packed)
    guard let module = info.name.dropping(suffix: isPacked ? Self.packed : ".weight") else { return nil }
    let found = CompressedModule(module, index, in: checkpoint)
    if !isPacked, found.scale == nil, CodeType(info.type) == nil { return nil }
    if isPacked, checkpoint.index(of: module + ".weight") != nil {
      throw Failure(.malformed, "is there beside '\(module).weight'")
    }
    let weights = try weights(of: module.string)
    return isPacked ? try found.fourBitFloats(weights, type) : try found.bytes(weights, type)
  }

  private func weights(of module: String) throws(Failure) -> CompressedTensorsSettings.Weights {
    let own = exceptions.settings(of: module)
    func value(_ key: String) -> JSONValue? { own?[key] ?? settings[key] }
    let kind = value("data_type")?.string ?? ""
    guard let bits = value("bits")?.int, let size = value("group_size")?.int, size > 0 else {
      throw Failure(.malformed, "is packed, but \(QuantizationSettings.fileName) has no 'bits' and 'group_size' for it")
    }
    guard kind.hasPrefix("mx_fp") || kind.hasPrefix("nv_fp") else {
      throw Failure(.unsupported, "has the data_type '\(kind)' of AutoRound, known here are mx_fp and nv_fp")
    }
    return CompressedTensorsSettings.Weights(
      bits: bits, isFloat: true, isSymmetric: true, strategy: kind.hasPrefix("nv_fp") ? .tensorGroup : .group,
      block: (1, size), isOrdered: false, activationBits: 16)
  }

  func remainder(_ index: Int, in checkpoint: any StoredTensors) -> PackedRemainder {
    CompressedTensorsLayout.remainder(checkpoint.tensors[index])
  }
}
