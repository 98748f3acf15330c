import Bytes
import GGUF
import Quantization
import Tensors

/// Everything about GGUF files that can be known without reading data.
struct GGUFPlan {
  /// Where the values come from, one tensor for each of `tensors`, of the same shape.
  let source: any TensorSource
  let tensors: [GGUFTensor]
  let layout: GGUFLayout
  /// Tensors whose bytes are those of a GGUF model that is read, by position in `tensors`: position there.
  private(set) var copies: [Int: Int] = [:]
  let stored: GGUFCheckpoint?
  /// What has been recorded of how much each column of a tensor matters, by position in `tensors`.
  var importance: [Int: [Float]] = [:]

  /// - Parameters:
  ///   - origins: for each tensor its position in `stored`, when it has the very same values.
  ///   - name: of the file; the files of a split get numbers.
  ///   - isFlat: shapes are written without dimensions of 1 in front, as ggml does, which has always four of them.
  /// - Throws: `unsupported` for a type that cannot be made of another.
  init(
    source: any TensorSource, types: [GGMLType], origins: [Int?], stored: GGUFCheckpoint?, metadata: GGUFMetadata,
    name: String, maxShardBytes: Int, isFlat: Bool = false
  ) throws(Failure) {
    var tensors: [GGUFTensor] = []
    for (index, (info, type)) in zip(source.tensors, types).enumerated() {
      let origin = index < origins.count ? origins[index] : nil
      if let stored, let origin, stored.tensors[origin].type == type { copies[index] = origin }
      guard copies[index] != nil || info.type == type.elementType || info.type.isFloat && type.canBeEncoded else {
        throw Failure(
          .unsupported, "is \(info.type.name), which cannot be written as \(type.name.uppercased())",
          tensor: info.name.string)
      }
      let leading = isFlat ? info.shape.dropLast().prefix { $0 == 1 }.count : 0
      tensors.append(try GGUFTensor(name: info.name, type: type, shape: Array(info.shape.dropFirst(leading))))
    }
    self.source = source
    self.stored = stored
    self.tensors = tensors
    layout = try GGUFLayout(name: name, metadata: metadata, tensors: tensors, maxShardBytes: maxShardBytes)
  }

  var inputByteCount: Int {
    tensors.indices.reduce(0) { $0.addingSaturated(inputByteCount(of: $1)) }
  }

  /// What is read from files for some elements of a tensor; those of all its pieces add up to the whole.
  func inputByteCount(of elements: Range<Int>, _ tensor: Int) -> Int {
    inputByteCount(of: tensor).part(elements, of: tensors[tensor].elementCount)
  }

  private func inputByteCount(of tensor: Int) -> Int {
    copies[tensor] == nil ? source.storedByteCount(of: tensor) : tensors[tensor].byteCount
  }

  var parameterCount: Int { tensors.reduce(0) { $0.addingSaturated($1.elementCount) } }
}

extension GGUFPlan: ManifestTensors {
  func forEach(
    _ body: (_ name: TensorName, _ file: String, _ offset: Int, _ byteCount: Int) throws(Failure) -> Void
  ) throws(Failure) {
    for file in layout.files {
      for (index, offset) in zip(file.tensors, file.offsets) {
        try body(tensors[index].name, file.name, offset, tensors[index].byteCount)
      }
    }
  }
}
