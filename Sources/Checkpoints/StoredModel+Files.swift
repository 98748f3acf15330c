/// Which files of a model's directory are what.
extension StoredModel {
  static func isWeights(_ name: String) -> Bool {
    let endings = [
      ".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".pt", ".pth", ".gguf", ".h5", ".msgpack",
      ".onnx", ".ot",
    ]
    return endings.contains { name.hasSuffix($0) } && name != "training_args.bin"
  }

  /// What only the run that goes on needs.
  static func isOfTraining(_ name: String) -> Bool {
    ["latest", "latest_universal", "zero_to_fp32.py", "zero_to_torch.py"].contains(name) || name.hasSuffix(".distcp")
  }

  /// Made anew for every output.
  static func isGenerated(_ name: String) -> Bool {
    name == Manifest.fileName || name == Manifest.checksumsName
  }
}
