import Bytes
import JSON
import Quantization
import Tensors

/// The checkpoints of compressed-tensors: `M.weight_packed`, or `M.weight` where codes have 8 bits, beside
/// `M.weight_scale`, with what else its group of modules has.
struct CompressedTensorsLayout: PackedLayout {
  private static let packed = ".weight_packed"
  private static let weight = ".weight"
  private static let suffixes = [
    ".weight_packed", ".weight_scale", ".weight_shape", ".weight_zero_point", ".weight_g_idx", ".weight_global_scale",
  ]

  private let settings: CompressedTensorsSettings
  private let type: FloatType

  var name: String { "compressed-tensors" }

  init?(_ config: JSONValue?, of checkpoint: any StoredTensors) throws(Failure) {
    guard let (method, settings) = QuantizationSettings.stated(config), method == "compressed-tensors",
      // What is wrong with the settings is of no account where nothing is quantized.
      checkpoint.tensors.contains(where: { info in Self.suffixes.contains { info.name.hasSuffix($0) } })
    else { return nil }
    self.settings = try CompressedTensorsSettings(settings)
    type = try QuantizationSettings.weightType(config)
  }

  func weight(_ index: Int, in checkpoint: any StoredTensors) throws(Failure) -> (any PackedWeight)? {
    let info = checkpoint.tensors[index]
    let isPacked = info.name.hasSuffix(Self.packed)
    guard let module = info.name.dropping(suffix: isPacked ? Self.packed : Self.weight) else { return nil }
    let found = CompressedModule(module, index, in: checkpoint)
    if !isPacked, found.scale == nil, CodeType(info.type) == nil, info.type != .i8 { return nil }
    let weights = try settings.weights(of: module.string)
    if isPacked, checkpoint.index(of: module + Self.weight) != nil {
      throw Failure(.malformed, "is there beside '\(module)\(Self.weight)'")
    }
    switch (isPacked, info.type) {
    case (true, .i32): return try found.packedIntegers(weights, type)
    case (true, .u8): return try found.fourBitFloats(weights, type)
    case (false, .f8e4m3), (false, .f8e5m2), (false, .i8): return try found.bytes(weights, type)
    default:
      throw Failure(
        .malformed,
        "has '.weight_scale' beside it, but is \(info.type.name); allowed are packed I32 and U8, and "
          + "F8_E4M3 and I8")
    }
  }

  func remainder(_ index: Int, in checkpoint: any StoredTensors) -> PackedRemainder {
    Self.remainder(checkpoint.tensors[index])
  }

  static func remainder(_ info: TensorInfo) -> PackedRemainder {
    if info.isActivationScale { return .leftOut }
    return suffixes.contains { info.name.hasSuffix($0) } ? .orphan : .plain
  }
}
