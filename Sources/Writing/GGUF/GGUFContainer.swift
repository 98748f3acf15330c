package import Bytes
import Checkpoints
package import GGUF
package import Tensors

/// A GGUF file, or its parts.
struct GGUFContainer: Container {
  let layout: GGUFLayout
  let files: [ContainerFile]

  init(_ layout: GGUFLayout) {
    self.layout = layout
    files = layout.files.map {
      ContainerFile(name: $0.name, steps: $0.tensors, dataByteCount: $0.size - $0.header.count)
    }
  }

  var alignment: Int { layout.alignment }

  func header(
    of file: Int, room: Int?, _ tensors: () throws(Failure) -> [StoredTensor]
  ) throws(Failure) -> [UInt8] {
    guard room == nil else { throw Failure(.internal, "the offsets of GGUF are known before its data") }
    return layout.files[file].header
  }
}

extension WritePlan {
  /// A GGUF model: each tensor of a source in the type given.
  ///
  /// - Parameters:
  ///   - origins: for each tensor its position in `stored`, when it has the very same values.
  ///   - importance: what has been recorded of how much each column of a tensor matters, by position.
  ///   - feedback: by which errors are made good, by the names in `source`.
  ///   - name: of the file; the files of a split get numbers.
  ///   - isFlat: shapes are written without dimensions of 1 in front.
  /// - Throws: `unsupported` for a type that cannot be made of another.
  package init(
    gguf name: String, source: any TensorSource, types: [GGMLType], origins: [Int?], stored: GGUFCheckpoint?,
    importance: [Int: [Float]] = [:], feedback: (any InputFactors)? = nil, metadata: GGUFMetadata, maxShardBytes: Int,
    isFlat: Bool = false
  ) throws(Failure) {
    var encoders: [any TensorEncoder] = []
    var tensors: [GGUFTensor] = []
    for (index, (info, type)) in zip(source.tensors, types).enumerated() {
      if let stored, index < origins.count, let origin = origins[index], stored.tensors[origin].type == type {
        encoders.append(StoredBlocks(checkpoint: stored, index: origin, isFlat: isFlat))
      } else {
        encoders.append(BlockEncoder(type: type, isFlat: isFlat, importance: importance[index], feedback: feedback))
      }
      _ = try encoders[index].outputs(for: info)
      tensors.append(try BlockEncoder.tensor(info, type, isFlat: isFlat))
    }
    let layout = try GGUFLayout(name: name, metadata: metadata, tensors: tensors, maxShardBytes: maxShardBytes)
    self.init(
      source: source, stored: NoTensors(), encoders: encoders,
      steps: tensors.indices.map { Step(tensor: $0, encoder: $0, origin: .derived([])) },
      container: GGUFContainer(layout))
  }

  /// The tensors of a GGUF model.
  func ggufTensors() throws(Failure) -> [GGUFTensor] {
    var tensors: [GGUFTensor] = []
    for step in steps {
      for output in try outputs(of: step) {
        guard case .ggml(let type) = output.type else { continue }
        tensors.append(try GGUFTensor(name: output.name, type: type, shape: output.shape))
      }
    }
    return tensors
  }
}
