import Bytes
import JSON
import Quantization
import Tensors

/// FP8 as DeepSeek introduced it and transformers, vLLM and FBGEMM have it: `P` in F8_E4M3 beside `P_scale_inv` or
/// `P_scale`, with a scale for each block, for each row or for the whole. Whatever it is called, it multiplies.
///
/// DeepSeek V4 has `M.scale` beside `M.weight`, and experts of two E2M1 in a byte, [out, in / 2] of I8, with a scale
/// for 32 of a row.
struct FP8Layout: PackedLayout {
  private static let methods = ["fp8", "fbgemm_fp8", "finegrained_fp8", "mxfp8"]
  private static let fp4Group = 32

  let name: String
  /// Elements of a column and of a row that share a scale; nil where config.json says that no blocks do.
  private let block: (rows: Int, columns: Int)?
  /// Whether config.json says so, not the default.
  private let isBlockStated: Bool
  private let type: FloatType

  init?(_ config: JSONValue?, of checkpoint: any StoredTensors) throws(Failure) {
    guard let (method, settings) = QuantizationSettings.stated(config) else { return nil }
    let isAutoRound = AutoRoundPacking((method, settings)) == .bytes
    guard isAutoRound || Self.methods.contains(method) else { return nil }
    name = method == "mxfp8" ? "MXFP8" : "FP8"
    type = try QuantizationSettings.weightType(config)
    if isAutoRound {
      isBlockStated = true
      block = try settings["group_size"].flatMap { (value) throws(Failure) in
        try value.array == nil ? nil : Self.block(value, "group_size")
      }
    } else if let value = settings["weight_block_size"] {
      isBlockStated = true
      block = try value.isNull ? nil : Self.block(value, "weight_block_size")
    } else {
      // Defaults of transformers.
      isBlockStated = false
      block = method == "mxfp8" ? (1, 32) : method == "fbgemm_fp8" ? nil : (128, 128)
    }
  }

  private static func block(_ value: JSONValue, _ key: String) throws(Failure) -> (rows: Int, columns: Int) {
    guard let sizes = value.array, sizes.count == 2, let rows = sizes[0].int, let columns = sizes[1].int, rows > 0,
      columns > 0
    else {
      throw Failure(
        .malformed, "\(key) is \(value.text(.line)), needed are two positive whole numbers",
        file: QuantizationSettings.fileName)
    }
    return (rows, columns)
  }

  func weight(_ index: Int, in checkpoint: any StoredTensors) throws(Failure) -> (any PackedWeight)? {
    let info = checkpoint.tensors[index]
    let code = CodeType(info.type)
    var found: [(suffix: String, index: Int)] = []
    for suffix in ["_scale_inv", "_scale"] {
      if let scales = checkpoint.index(of: info.name + suffix) { found.append((suffix, scales)) }
    }
    if let module = info.name.dropping(suffix: ".weight"), let scales = checkpoint.index(of: module + ".scale") {
      if checkpoint.tensors[scales].type == .f8e8m0 { found.append((".scale", scales)) }
    }
    guard let scales = found.first else {
      guard code == nil else {
        throw Failure(.malformed, "is \(info.type.name), but its scales ('_scale_inv' or '_scale') are missing")
      }
      return nil
    }
    if code == nil, scales.suffix == "_scale", !info.name.hasSuffix(".weight") { return nil }
    guard found.count == 1 else {
      throw Failure(.malformed, "has both '\(found[0].suffix)' and '\(found[1].suffix)' beside it")
    }
    let stored = checkpoint.tensors[scales.index]
    if info.type == .i8, stored.type == .f8e8m0 { return try fp4(index, scales.index, checkpoint) }
    guard let code else {
      throw Failure(.malformed, "has '\(scales.suffix)' beside it, but is \(info.type.name), needed is F8_E4M3")
    }
    guard let storage = ScaleGrid.Storage(stored.type), info.shape.count > 1 else {
      throw Failure(
        .malformed,
        "is of shape \(info.shape) with scales in \(stored.type.name), needed are matrices with scales in "
          + "F32, BF16, F16, F8_E8M0 or U8")
    }
    let grid = try ScaleShape(info.shape, stored.shape).grid(
      scales.index, storage, block: block, isBlockStated: isBlockStated, suffix: scales.suffix)
    return ScaledWeight(
      info: try TensorInfo(name: info.name, type: type.elementType, shape: info.shape),
      typeName: name == "MXFP8" ? name : code.fp8Name, parts: [index, scales.index], codes: code,
      rowBytes: info.shape[info.shape.count - 1], scales: grid)
  }

  private func fp4(
    _ index: Int, _ scales: Int, _ checkpoint: any StoredTensors
  ) throws(Failure) -> any PackedWeight {
    let packed = checkpoint.tensors[index]
    return try ScaledWeight(
      fourBit: packed.name, parts: [index, scales], as: type, "MXFP4", groupSize: Self.fp4Group, in: checkpoint)
  }

  func remainder(_ index: Int, in checkpoint: any StoredTensors) -> PackedRemainder {
    let info = checkpoint.tensors[index]
    if info.isActivationScale { return .leftOut }
    let isOrphan =
      info.name.hasSuffix("_scale_inv") || info.name.hasSuffix(".weight_scale")
      || info.name.hasSuffix(".scale") && info.type == .f8e8m0
    return isOrphan ? .orphan : .plain
  }
}

extension CodeType {
  /// What a tensor of codes of 8 bits holds.
  init?(_ type: ElementType) {
    switch type {
    case .f8e4m3: self = .e4m3
    case .f8e5m2: self = .e5m2
    default: return nil
    }
  }

  fileprivate var fp8Name: String { self == .e5m2 ? "FP8-E5M2" : "FP8-E4M3" }
}

extension TensorInfo {
  /// Whether this is a scale of activations, or of a cache, by its name: one number or a few.
  var isActivationScale: Bool {
    guard FloatType(type) != nil, shape.count < 2 || elementCount == 1 else { return false }
    let names = [
      "input_scale", "input_scale_ub", "activation_scale", "output_scale", "k_scale", "v_scale", "q_scale", "kv_scale",
      "prob_scale", "input_global_scale", "k_proj.output_scale", "input_zero_point",
    ]
    return names.contains { name.hasSuffix(".\($0)") || name.hasSuffix("_\($0)") }
  }
}
