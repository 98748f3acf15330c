import Architectures
import Bytes
import JSON
import ModelFamilies
import Tensors

/// MLX's groups, in the form that mlx-lm gives a model.
///
/// Classes without a row in `MLXFamily` are not known here: `sanitize` of mlx-lm may have changed values under names
/// that stayed, as it adds 1 to the norms of Qwen3-Next, so that names and shapes do not tell that nothing is to be
/// undone. They are refused.
struct MLXLayout: PackedLayout {
  private let settings: MLXSettings

  var name: String { "MLX" }

  init?(_ config: JSONValue?, of checkpoint: any StoredTensors) throws(Failure) {
    // What is wrong with the settings is of no account where nothing is in groups.
    guard MLXSettings.areStated(config), Self.hasGroups(checkpoint), let settings = try MLXSettings(config) else {
      return nil
    }
    self.settings = settings
  }

  private static func hasGroups(_ checkpoint: any StoredTensors) -> Bool {
    checkpoint.tensors.contains { tensor in
      guard let module = tensor.name.dropping(suffix: MLXWeight.suffix) else { return false }
      return tensor.type == .u32 || checkpoint.index(of: module + MLXWeight.scales) != nil
    }
  }

  func weight(_ index: Int, in checkpoint: any StoredTensors) throws(Failure) -> (any PackedWeight)? {
    let info = checkpoint.tensors[index]
    if let module = info.name.dropping(suffix: MLXWeight.scales),
      checkpoint.index(of: module + MLXWeight.suffix) == nil
    {
      throw Failure(.malformed, "are scales of a weight that is not there")
    }
    guard let module = info.name.dropping(suffix: MLXWeight.suffix) else { return nil }
    let hasScales = checkpoint.index(of: module + MLXWeight.scales) != nil
    if !hasScales, info.type != .u32 { return nil }
    guard let format = try settings.format(of: module.string) else {
      throw Failure(.malformed, "is in groups, but config.json says that '\(module)' is not quantized")
    }
    return try MLXWeight(index, format, in: checkpoint)
  }

  func originals(of tensors: [TensorInfo], config: JSONValue) throws(Failure) -> [PlannedWeight] {
    try MLXFamily(of: ModelConfiguration(config)).originals(of: tensors, config: config)
  }

  func original(_ config: JSONValue) -> JSONValue {
    var config = config
    for key in ["quantization", "quantization_config"] { config[key] = nil }
    return config
  }
}
