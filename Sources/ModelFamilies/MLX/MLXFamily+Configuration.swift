package import Architectures
package import Bytes
package import JSON

/// The class that a configuration names, and what it says under other names.
extension MLXFamily {
  /// - Throws: `unsupported` for a class without a row.
  package init(of configuration: ModelConfiguration) throws(Failure) {
    let known = Self.all.map(\.modelType).joined(separator: ", ")
    guard let type = configuration.modelType, let family = Self.all.first(where: { $0.modelType == type }) else {
      throw Failure(
        .unsupported,
        "has the model_type '\(configuration.modelType ?? "")', whose form in mlx-lm is not known here; known are \(known)",
        file: ModelParameters.file)
    }
    if let architecture = configuration.architecture, architecture != family.architecture {
      throw Failure(
        .unsupported, "is \(architecture); of model_type '\(type)' mlx-lm loads \(family.architecture) only",
        file: ModelParameters.file)
    }
    self = family
  }

  /// A member that mlx-lm has under its old name only; nil where there is none of either name.
  package static func member(_ name: String, in config: JSONValue) -> JSONValue? {
    if let value = config[name] { return value }
    let rope = config["rope_parameters"]
    switch name {
    case "num_experts": return config["num_local_experts"]
    case "rope_theta": return rope?["rope_theta"] ?? rope?["full_attention"]?["rope_theta"]
    case "rope_scaling": return rope.map { $0["rope_type"]?.string == "default" ? .null : $0 }
    default: return rope?[name]
    }
  }
}
