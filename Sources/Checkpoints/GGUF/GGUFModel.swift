package import Bytes
import GGUF
package import JSON
import ModelFamilies
import PackedWeights
package import Quantization
package import Tensors
import Tokenizers

/// A GGUF model as the Hugging Face model that it was made from: names, shapes and order of rows are those of
/// transformers. Types of 32 and 16 bits stay; blocks are decoded.
package struct GGUFModel: StoredCheckpoint {
  package let values: StoredGGUF
  package let tensors: [TensorInfo]
  /// `config.json`, rebuilt.
  package let config: JSONValue
  package let warnings: [Warning]
  private let planned: PlannedSource
  private let source: ConvertedSource
  private let positions: [TensorName: Int]

  /// - Parameter blockType: what blocks become.
  package init(_ values: StoredGGUF, blockType: FloatType) throws(Failure) {
    let checkpoint = values.checkpoint
    let plan: HuggingFaceModelPlan
    do throws(Failure) {
      plan = try planHuggingFace(metadata: checkpoint.metadata, tensors: checkpoint.tensors) {
        (index) throws(Failure) in try values.floats(of: index)
      }
    } catch { throw error.located(file: checkpoint.files.first?.name) }
    planned = try PlannedSource(values, plan.weights)
    var conversions: [Int: FloatType] = [:]
    for (index, weight) in plan.weights.enumerated() where blockType != .f32 {
      let isBlock = weight.source.positions.contains { checkpoint.tensors[$0].type.blockType != nil }
      if isBlock { conversions[index] = blockType }
    }
    source = try ConvertedSource(planned, conversions)
    tensors = source.tensors
    var positions: [TensorName: Int] = [:]
    for (index, tensor) in tensors.enumerated() { positions[tensor.name] = index }
    self.positions = positions
    var config = plan.config
    let type = FloatType(tensors.prevailingType) ?? .bf16
    config["dtype"] = .string(type.torchName)
    self.config = config
    self.values = values
    warnings = values.warnings + plan.warnings
  }

  /// The names here of tensors of the file that are here whole, by position in the file.
  package var storedNames: [Int: TensorName] {
    var names: [Int: TensorName] = [:]
    for weight in planned.weights {
      if case .stored(let index) = weight.source { names[index] = weight.name }
    }
    return names
  }

  /// The files of its tokenizer and its model card, rebuilt.
  package func sideFiles() throws(Failure) -> (files: [(name: String, contents: [UInt8])], warnings: [Warning]) {
    let metadata = values.checkpoint.metadata
    let card = try modelCard(metadata).map { [(name: "README.md", contents: $0)] } ?? []
    do throws(Failure) {
      let tokenizer = try huggingFaceTokenizer(metadata)
      return (tokenizer.files + card, tokenizer.warnings)
    } catch {
      guard error.code == .missing || error.code == .unsupported else { throw error }
      // They are text, whatever the tokens are.
      return (try huggingFaceChatTemplates(metadata), ["the tokenizer is left out: \(error)"])
    }
  }

  package var files: CheckpointFiles { .gguf(values) }
  package var container: String { "gguf" }
  package var path: String { values.path }
  /// Always nil: files beside a GGUF file are not part of the model.
  package var directory: InputDirectory? { nil }
  package var fileNames: [String] { values.fileNames }
  package var identities: [FileIdentity] { values.identities }

  package func index(of name: TensorName) -> Int? { positions[name] }
  package func metadata(isWhole: Bool) throws(Failure) -> [MetadataEntry] { try values.metadata(isWhole: isWhole) }
  package func checkUnchanged() throws(Failure) { try values.checkUnchanged() }

  package func location(of index: Int) -> (file: String, offset: Int) {
    planned.weights[index].source.positions.first.map(values.location) ?? ("", 0)
  }

  package func place(of index: Int) throws(Failure) -> (file: InputFile, offset: Int)? {
    guard let origin = planned.origin(of: index), planned.tensors[index].type == tensors[index].type else { return nil }
    return try values.place(of: origin)
  }

  /// The type that the tensor has in the GGUF file.
  package func typeName(of index: Int) -> String {
    planned.weights[index].source.positions.first.map(values.typeName) ?? tensors[index].type.name
  }

  /// Bytes of the tensor in the file; for an expert of a stack, its part of the stack's bytes.
  package func storedByteCount(of index: Int) -> Int { planned.storedByteCount(of: index) }

  package func read(_ index: Int, at offset: Int, into destination: inout MutableRawSpan) throws(Failure) {
    try source.read(index, at: offset, into: &destination)
  }
}

extension PlannedWeight.Source {
  /// Positions of the tensors that the weight is made of.
  package var positions: [Int] {
    switch self {
    case .stored(let index), .part(of: let index, index: _): [index]
    case .stacked(let indices): indices
    case .values: []
    }
  }
}

extension StoredGGUF {
  /// All values of a small tensor.
  fileprivate func floats(of index: Int) throws(Failure) -> [Float] {
    let info = tensors[index]
    guard let type = FloatType(info.type), info.elementCount <= 1 << 20 else {
      throw Failure(.malformed, "is \(info.type.name) of \(info.elementCount) elements", tensor: info.name.string)
    }
    let stored = try ScratchBuffer(self, index, at: 0, count: info.byteCount)
    var values = [Float](repeating: 0, count: info.elementCount)
    var room = values.mutableSpan
    var bytes = room.mutableRawBytes
    do throws(Overflow) { try convert(stored.bytes, from: type, to: .f32, into: &bytes) } catch {
      throw Failure(.malformed, "holds a value beyond the range of float32", tensor: info.name.string)
    }
    return values
  }
}

extension [TensorInfo] {
  /// The type of most values in matrices.
  var prevailingType: ElementType {
    var counts: [ElementType: Int] = [:]
    for tensor in self where tensor.shape.count > 1 {
      counts[tensor.type] = (counts[tensor.type] ?? 0).addingSaturated(tensor.elementCount)
    }
    return counts.max { ($0.value, $0.key.rawValue) < ($1.value, $1.key.rawValue) }?.key ?? .f32
  }
}
