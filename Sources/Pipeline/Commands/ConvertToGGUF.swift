import Bytes
import GGUF
import JSON
import Quantization
import Tensors

extension Convert {
  /// To GGUF: matrices keep their dtype unless another is asked for, vectors become F32, as llama.cpp wants them.
  func convertToGGUF(
    _ source: String, output: String, announce: (String) -> Void
  ) throws(Failure) -> RunReport {
    let input = try GGUFInput(path: source)
    var types = input.tensors.map(\.type)
    var metadata = input.metadata
    if let target = FloatType(torchName: type.rawValue).flatMap({ GGMLType($0.elementType) }) {
      for (index, tensor) in input.tensors.enumerated() where tensor.shape.count > 1 && tensor.type.isReal {
        types[index] = target
      }
      if let fileType = target.fileType { metadata["general.file_type"] = .uint32(fileType) }
    }
    let plan = try GGUFPlan(
      source: input.source, types: types, origins: Array(input.tensors.indices), stored: input.stored,
      metadata: metadata, name: fileName(of: output), maxShardBytes: run.maxShardBytes)
    return try GGUFRun(
      plan: plan, operation: "convert", activity: "converting",
      recorded: [("dtype", .string(type.rawValue)), ("maxShardSize", .number(run.maxShardBytes))],
      warnings: input.warnings, options: run, identities: input.identities, checkUnchanged: input.checkUnchanged
    ).run(into: output, announce: announce)
  }
}

/// The last component of a path.
func fileName(of path: String) -> String { path.split(separator: "/").last.map(String.init) ?? path }

extension GGMLType {
  /// Whether it stands for real numbers: what may be written in another type.
  var isReal: Bool { blockType != nil || elementType?.isFloat == true }

  /// `general.file_type` of a model that is in it but for its vectors.
  var fileType: UInt32? {
    switch self {
    case .f32: 0
    case .f16: 1
    case .bf16: 32
    default: nil
    }
  }
}
