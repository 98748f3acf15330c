public import Bytes
public import GGUF
public import JSON

/// The metadata of a LoRA adapter in GGUF, as llama.cpp's `convert_lora_to_gguf.py` writes it but for the last pair,
/// `general.quantization_version`.
///
/// - Parameters:
///   - config: `config.json` of the base.
///   - alpha: what the rank of each module divides; llama.cpp takes α/r for every one of them.
///   - directoryName: the last component of the adapter's path, which its name is guessed from.
///   - sideFile: the content of a file of the adapter's directory, nil when it is not there.
public func ggufAdapterMetadata(
  config: JSONValue, alpha: Float, directoryName: String, sideFile: (String) throws(Failure) -> [UInt8]?,
  warnings: inout [Warning]
) throws(Failure) -> GGUFMetadata {
  let family = try Family.of(config)
  var metadata = PlannedMetadata()
  metadata.set("general.architecture", .text(family.architecture))
  metadata.set("general.type", .text("adapter"))
  metadata.set("adapter.type", .text("lora"))
  // The size of an adapter is not the model's.
  let general = try GeneralMetadata(
    config: config, directoryName: directoryName, counts: try ParameterCounts([]), sideFile: sideFile,
    warnings: &warnings)
  try general.write(to: &metadata)
  metadata.set("adapter.lora.alpha", .float32(alpha))
  return GGUFMetadata(metadata.pairs)
}
