import Bytes
import JSON
import Quantization
import Tensors

/// The checkpoints of NVIDIA's ModelOpt: NVFP4 is `M.weight` in U8 beside `M.weight_scale` in F8_E4M3 and
/// `M.weight_scale_2`, which multiplies; FP8 is `M.weight` in F8_E4M3 beside one `M.weight_scale`.
struct ModelOptLayout: PackedLayout {
  private static let settingsName = "hf_quant_config.json"
  private static let algorithms = ["NVFP4", "FP8", "MIXED_PRECISION"]
  private static let group = 16

  private let type: FloatType

  var name: String { "ModelOpt" }
  var settingsFiles: [String] { [Self.settingsName] }

  init?(_ config: JSONValue?, of checkpoint: any StoredTensors) throws(Failure) {
    guard checkpoint.tensors.contains(where: { $0.name.hasSuffix(".weight_scale") }),
      let (settings, file) = try Self.settings(config, checkpoint)
    else { return nil }
    let algorithm = settings["quant_algo"]?.string ?? ""
    guard Self.algorithms.contains(algorithm) else {
      throw Failure(
        .unsupported,
        "ModelOpt: the quant_algo '\(algorithm)' is not known here; known are "
          + Self.algorithms.joined(separator: ", "), file: file)
    }
    if let size = settings["group_size"], !size.isNull, algorithm == "NVFP4", size.int != Self.group {
      throw Failure(.unsupported, "ModelOpt: group_size is \(size.text(.line)), NVFP4 has \(Self.group)", file: file)
    }
    type = try QuantizationSettings.weightType(config)
  }

  private static func settings(
    _ config: JSONValue?, _ checkpoint: any StoredTensors
  ) throws(Failure) -> (JSONValue, file: String)? {
    if let (method, settings) = QuantizationSettings.stated(config) {
      return method.hasPrefix("modelopt") ? (settings, QuantizationSettings.fileName) : nil
    }
    guard let directory = checkpoint.directory, directory.contains(settingsName) else { return nil }
    let file = try directory.open(settingsName)
    let stated = try JSONValue(
      parsing: file.contents(limit: QuantizationSettings.fileLimit), .python, file: settingsName)
    guard let settings = stated["quantization"], settings.object != nil else { return nil }
    return (settings, settingsName)
  }

  func weight(_ index: Int, in checkpoint: any StoredTensors) throws(Failure) -> (any PackedWeight)? {
    let info = checkpoint.tensors[index]
    guard let module = info.name.dropping(suffix: ".weight") else { return nil }
    let scale = checkpoint.index(of: module + ".weight_scale")
    if scale == nil, info.type != .u8, info.type != .f8e4m3 { return nil }
    guard checkpoint.index(of: module + ".pre_quant_scale") == nil else {
      throw Failure(.unsupported, "has '.pre_quant_scale' beside it: weights scaled for their inputs are not read")
    }
    guard let scale else { throw Failure(.malformed, "is \(info.type.name), but '.weight_scale' is missing beside it") }
    switch info.type {
    case .u8:
      guard let global = checkpoint.index(of: module + ".weight_scale_2") else {
        throw Failure(.malformed, "is in NVFP4, but '.weight_scale_2' is missing beside it")
      }
      let stored = checkpoint.tensors[global]
      guard stored.type == .f32, stored.elementCount == 1, checkpoint.tensors[scale].type == .f8e4m3 else {
        throw Failure(
          .malformed,
          "has '.weight_scale' in \(checkpoint.tensors[scale].type.name) and '.weight_scale_2' in "
            + "\(stored.type.name) of shape \(stored.shape), needed are F8_E4M3 and one F32")
      }
      return try ScaledWeight(
        fourBit: info.name, parts: [index, scale, global], as: type, "NVFP4", groupSize: Self.group,
        factor: ScaleGrid.Factor(index: global, divides: false), scalesAs: .e4m3, in: checkpoint)
    case .f8e4m3:
      let stored = checkpoint.tensors[scale]
      guard info.shape.count > 1, let storage = ScaleGrid.Storage(stored.type, bytesAs: nil) else {
        throw Failure(
          .malformed,
          "is of shape \(info.shape) with '.weight_scale' in \(stored.type.name), needed are a matrix and F32")
      }
      return ScaledWeight(
        info: try TensorInfo(name: info.name, type: type.elementType, shape: info.shape), typeName: "FP8-E4M3",
        parts: [index, scale], codes: .e4m3, rowBytes: info.shape[info.shape.count - 1],
        scales: try ScaleShape(info.shape, stored.shape).grid(
          scale, storage, block: nil, isBlockStated: false, suffix: ".weight_scale"))
    default:
      throw Failure(
        .malformed, "has '.weight_scale' beside it, but is \(info.type.name); allowed are U8 and F8_E4M3")
    }
  }

  func remainder(_ index: Int, in checkpoint: any StoredTensors) -> PackedRemainder {
    let info = checkpoint.tensors[index]
    if info.isActivationScale { return .leftOut }
    return [".weight_scale", ".weight_scale_2"].contains { info.name.hasSuffix($0) } ? .orphan : .plain
  }
}
