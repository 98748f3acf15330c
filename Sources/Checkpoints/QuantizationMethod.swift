package import JSON
import PackedWeights
import Tensors

/// How a checkpoint says it is quantized.
package enum QuantizationMethod: Sendable, Equatable {
  case none
  /// bitsandbytes NF4 or FP4: what Nibble reads and writes.
  case fourBit
  /// Anything else, by name, unless it was read as what it stands for, which is `none`.
  case other(String)
}

extension StoredModel {
  package var quantizationMethod: QuantizationMethod { QuantizationMethod(logical, config: config) }
}

extension QuantizationMethod {
  /// Takes the method that the configuration declares, else the one that the tensors show.
  package init(_ logical: LogicalTensors, config: JSONValue?) {
    self = Self.declared(config) ?? Self.found(logical)
  }

  private static func found(_ logical: LogicalTensors) -> QuantizationMethod {
    if logical.hasFourBitWeights { return .fourBit }
    for tensor in logical.checkpoint.tensors {
      if tensor.name.hasSuffix(".qweight") || tensor.name.hasSuffix(".qzeros") { return .other("GPTQ or AWQ") }
      if tensor.name.hasSuffix(".W_q") { return .other("HQQ") }
      if tensor.name.hasSuffix("_qdata") { return .other("torchao") }
      if tensor.name.hasSuffix(".SCB") { return .other("bitsandbytes LLM.int8()") }
      if tensor.name.hasSuffix(".weight_packed") { return .other("compressed-tensors") }
      if tensor.name.hasSuffix(".weight_scale_inv") { return .other("FP8") }
      if isPackedByMLX(tensor, logical.checkpoint) { return .other("MLX") }
      switch tensor.type {
      case .f8e4m3, .f8e5m2, .f8e4m3fnuz, .f8e5m2fnuz: return .other("FP8")
      case .f4: return .other("FP4 (packed elements)")
      default: break
      }
    }
    return .none
  }

  private static func declared(_ config: JSONValue?) -> QuantizationMethod? {
    let settings = config?["quantization_config"] ?? config?["compression_config"]
    if settings?["quant_method"] == nil, isMLX(settings) || isMLX(config?["quantization"]) { return .other("MLX") }
    // Where methods are older than the member that names them.
    for (key, method) in [("quip_params", "quip"), ("aqlm", "aqlm")] where config?[key]?.object != nil {
      return .other(UnreadMethods.text(method))
    }
    guard let settings = settings?.isNull == false ? settings : ofPart(config) else { return nil }
    let method = settings["quant_method"]?.string
    switch method {
    case "bitsandbytes", nil:
      if settings["load_in_8bit"]?.bool == true || settings["_load_in_8bit"]?.bool == true {
        return .other("bitsandbytes LLM.int8()")
      }
      if settings["load_in_4bit"]?.bool == true || settings["_load_in_4bit"]?.bool == true || method != nil {
        return .fourBit
      }
      return .other("an unnamed method")
    case "gptq": return .other("GPTQ")
    case "awq": return .other("AWQ")
    case "fp8", "fbgemm_fp8", "finegrained_fp8": return .other("FP8")
    case "mxfp4": return .other("MXFP4")
    case .some(let name): return .other(UnreadMethods.text(name))
    }
  }

  /// Those of a part of the model; bitsandbytes' are told from the tensors.
  private static func ofPart(_ config: JSONValue?) -> JSONValue? {
    guard let (method, settings) = QuantizationSettings.stated(config), method != "bitsandbytes" else { return nil }
    return settings
  }

  /// The settings that MLX writes, newer releases under both keys; they name no method.
  private static func isMLX(_ settings: JSONValue?) -> Bool {
    settings?["group_size"]?.int != nil && settings?["bits"]?.int != nil
  }

  /// Codes of MLX lie in words of 32 bits, with `scales` beside them.
  private static func isPackedByMLX(_ tensor: TensorInfo, _ checkpoint: any StoredCheckpoint) -> Bool {
    guard tensor.type == .u32, tensor.name.hasSuffix(".weight") else { return false }
    let scales = tensor.name.string.dropLast("weight".count) + "scales"
    return checkpoint.index(of: TensorName(String(scales))) != nil
  }
}
