package import Bytes
import Checkpoints
import GGUF
import JSON
import PackedWeights
package import Quantization
import Tensors
package import Writing

extension Convert {
  /// To GGUF: matrices keep their dtype unless another is asked for, vectors become F32, as llama.cpp wants them.
  func convertToGGUF(
    _ files: CheckpointFiles, output: String, announce: (Warning) -> Void
  ) throws(Failure) -> RunReport {
    let target = type
    let input = try GGUFContents(files, isExact: target != nil)
    do throws(Failure) {
      let plan = try input.plan(as: target, name: FileName.last(of: output), maxShardBytes: run.maxShardBytes)
      return try WriteRun(
        plan: plan, destination: GGUFDestination(), operation: "convert", activity: "converting", source: input.path,
        recorded: [("dtype", .string(type.choice)), ("maxShardSize", .number(run.maxShardBytes))],
        warnings: input.warnings, options: run, inputs: RunInputs(input)
      ).run(into: output, announce: announce)
    } catch { throw input.located(error) }
  }
}

extension GGUFContents {
  /// - Parameter target: what matrices are written in; nil keeps the type of each.
  package func plan(as target: FloatType?, name: String, maxShardBytes: Int) throws(Failure) -> WritePlan {
    var types = tensors.map(\.type)
    var metadata = metadata
    if let target = target.flatMap({ GGMLType($0.elementType) }) {
      for index in types.indices where !fixed.contains(index) { types[index] = target }
      if let fileType = target.fileType { metadata[Self.fileTypeKey] = .uint32(fileType) }
    }
    return try WritePlan(
      gguf: name, source: source, types: types, origins: origins, stored: stored, metadata: metadata,
      maxShardBytes: maxShardBytes)
  }
}

extension RunInputs {
  package init(_ input: GGUFContents) { self.init(identities: input.identities, checkUnchanged: input.checkUnchanged) }
}

extension GGMLType {
  /// Whether it stands for real numbers: what may be written in another type.
  var isReal: Bool { blockType != nil || elementType?.isFloat == true }

  /// `general.file_type` of a model that is in it but for its vectors.
  package var fileType: UInt32? {
    switch self {
    case .f32: 0
    case .f16: 1
    case .bf16: 32
    default: nil
    }
  }
}
