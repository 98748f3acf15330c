package import JSON
public import Quantization

/// The schemes of compressed-tensors by the names that the command line has for them.
public enum CompressedScheme: String, Sendable, CaseIterable {
  case fp8Channel = "fp8-channel"
  case fp8Block = "fp8-block"
  case w4a16
  case nvfp4a16
  case mxfp4a16

  /// - Parameter groupSize: of `w4a16`, nil for 128; the others have their own.
  /// - Returns: nil for a size that the scheme does not have.
  public func format(groupSize: Int? = nil) -> ScaledFormat? {
    if self == .w4a16 { return .int4(groupSize: groupSize ?? 128) }
    let format: ScaledFormat
    switch self {
    case .fp8Channel: format = .fp8Channel
    case .fp8Block: format = .fp8Block
    case .nvfp4a16: format = .nvfp4
    case .mxfp4a16, .w4a16: format = .mxfp4
    }
    return groupSize == nil || groupSize == format.blockColumns && format.blockRows == 1 ? format : nil
  }

  package init(_ format: ScaledFormat) {
    switch format.kind {
    case .fp8: self = format.blockRows == 1 ? .fp8Channel : .fp8Block
    case .int4: self = .w4a16
    case .mxfp4, .nearestMXFP4: self = .mxfp4a16
    case .nvfp4: self = .nvfp4a16
    }
  }

  /// What a summary calls the scheme.
  static func name(of format: ScaledFormat) -> String { CompressedScheme(format).rawValue.uppercased() }

  /// `quantization_config` of config.json, which transformers with compressed-tensors and vLLM read.
  ///
  /// - Parameter ignored: paths of the linear layers that stay as they are.
  package static func configuration(_ format: ScaledFormat, ignored: [String]) -> JSONValue {
    let storage: String
    var activations: JSONValue = .null
    switch format.kind {
    case .fp8:
      storage = "float-quantized"
      activations = arguments(
        bits: 8, isFloat: true, strategy: format.blockRows == 1 ? "token" : "group",
        groupSize: format.blockRows == 1 ? nil : format.blockColumns, isDynamic: true)
    case .int4: storage = "pack-quantized"
    case .mxfp4, .nearestMXFP4: storage = "mxfp4-pack-quantized"
    case .nvfp4: storage = "nvfp4-pack-quantized"
    }
    return [
      "config_groups": [
        "group_0": [
          "format": .string(storage), "input_activations": activations, "output_activations": .null,
          "targets": ["Linear"], "weights": weights(format),
        ]
      ],
      "format": .string(storage), "global_compression_ratio": .null, "ignore": .array(ignored.map(JSONValue.string)),
      "kv_cache_scheme": .null, "quant_method": "compressed-tensors", "quantization_status": "compressed",
    ]
  }

  private static func weights(_ format: ScaledFormat) -> JSONValue {
    switch format.kind {
    case .fp8:
      guard let columns = format.blockColumns else { return arguments(bits: 8, isFloat: true, strategy: "channel") }
      var weights = arguments(bits: 8, isFloat: true, strategy: "block")
      weights["block_structure"] = [.number(format.blockRows), .number(columns)]
      return weights
    case .int4: return arguments(bits: 4, isFloat: false, strategy: "group", groupSize: format.blockColumns)
    case .mxfp4, .nearestMXFP4:
      var weights = arguments(bits: 4, isFloat: true, strategy: "group", groupSize: format.blockColumns)
      weights["scale_dtype"] = "torch.uint8"
      return weights
    case .nvfp4:
      var weights = arguments(bits: 4, isFloat: true, strategy: "tensor_group", groupSize: format.blockColumns)
      weights["scale_dtype"] = "torch.float8_e4m3fn"
      return weights
    }
  }

  private static func arguments(
    bits: Int, isFloat: Bool, strategy: String, groupSize: Int? = nil, isDynamic: Bool = false
  ) -> JSONValue {
    [
      "actorder": .null, "block_structure": .null, "dynamic": .bool(isDynamic),
      "group_size": groupSize.map { .number($0) } ?? .null, "num_bits": .number(bits),
      "strategy": .string(strategy), "symmetric": true, "type": .string(isFloat ? "float" : "int"),
    ]
  }
}
