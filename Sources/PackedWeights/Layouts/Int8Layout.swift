import Bytes
import JSON
import Quantization
import Tensors

/// LLM.int8() of bitsandbytes: `M.weight` in I8 beside `M.SCB`, the largest magnitude of each row, [out] of F32.
struct Int8Layout: PackedLayout {
  private static let scales = ".SCB"
  private static let format = ".weight_format"
  /// 1/127 as bitsandbytes has it, with which it multiplies after the product of code and maximum is rounded.
  private static let share: Float = 7.874015718698502e-3

  private let type: FloatType

  var name: String { "bitsandbytes LLM.int8()" }

  init?(_ config: JSONValue?, of checkpoint: any StoredTensors) throws(Failure) {
    guard let settings = config?["quantization_config"],
      ["bitsandbytes", nil].contains(settings["quant_method"]?.string),
      settings["load_in_8bit"]?.bool == true || settings["_load_in_8bit"]?.bool == true
    else { return nil }
    type = try QuantizationSettings.weightType(config)
  }

  func weight(_ index: Int, in checkpoint: any StoredTensors) throws(Failure) -> (any PackedWeight)? {
    let info = checkpoint.tensors[index]
    guard let module = info.name.dropping(suffix: ".weight") else { return nil }
    guard let scales = checkpoint.index(of: module + Self.scales) else {
      if info.type == .i8 { throw Failure(.malformed, "is I8, but '\(Self.scales)' is missing beside it") }
      return nil
    }
    let stored = checkpoint.tensors[scales]
    guard info.type == .i8, info.shape.count == 2, stored.type == .f32, stored.elementCount == info.shape[0],
      stored.shape.count == 1
    else {
      throw Failure(
        .malformed,
        "is \(info.type.name) of shape \(info.shape) with '\(Self.scales)' in \(stored.type.name) of shape "
          + "\(stored.shape), needed are I8 [rows, columns] and F32 [rows]")
    }
    let format = checkpoint.index(of: module + Self.format)
    if let format, let other = try checkpoint.bytes(of: format).first(where: { $0 != 0 }) {
      throw Failure(.unsupported, "'\(Self.format)' is \(other), known here is 0: row after row")
    }
    var weight = ScaledWeight(
      info: try TensorInfo(name: info.name, type: type.elementType, shape: info.shape), typeName: "INT8",
      parts: [index, scales] + [format].compactMap(\.self), codes: .int8, rowBytes: info.shape[1],
      scales: ScaleGrid(
        index: scales, storage: .floats(.f32), blockRows: 1, blockColumns: max(1, info.shape[1]), rows: info.shape[0],
        columns: 1))
    weight.share = Self.share
    return weight
  }

  func remainder(_ index: Int, in checkpoint: any StoredTensors) -> PackedRemainder {
    let name = checkpoint.tensors[index].name
    return name.hasSuffix(Self.scales) || name.hasSuffix(Self.format) ? .orphan : .plain
  }
}
