package import Bytes
package import JSON
import ModelFamilies
import PackedWeights
import Quantization
package import Tensors

/// A checkpoint in another program's form, as transformers or PEFT would have it: other names, other arrangements, and
/// the configuration that goes with them.
package struct PlannedCheckpoint: WrappingCheckpoint {
  /// The tensors as they lie in the files.
  package let base: any StoredCheckpoint
  package let tensors: [TensorInfo]
  package let container: String
  package let directory: InputDirectory?
  package let path: String
  /// Also those that have another form in what is made of it, such as settings.
  package let fileNames: [String]
  package let warnings: [Warning]
  package let madeConfig: JSONValue?
  /// `adapter_config.json`, made of the program's own; nil for a model.
  package let adapterConfig: JSONValue?
  private let source: PlannedSource
  private let positions: [TensorName: Int]

  init(
    _ base: any StoredCheckpoint, _ weights: [PlannedWeight], container: String, _ directory: InputDirectory,
    fileNames: [String], warnings: [Warning], config: JSONValue? = nil, adapterConfig: JSONValue? = nil
  ) throws(Failure) {
    self.base = base
    self.container = container
    self.directory = directory
    path = directory.path
    self.fileNames = fileNames
    self.warnings = warnings
    self.adapterConfig = adapterConfig
    source = try PlannedSource(base, weights)
    tensors = source.tensors
    var positions: [TensorName: Int] = [:]
    for (index, tensor) in tensors.enumerated() { positions[tensor.name] = index }
    self.positions = positions
    var config = config
    if config != nil { config?["dtype"] = .string((FloatType(tensors.prevailingType) ?? .bf16).torchName) }
    madeConfig = config
  }

  package var files: CheckpointFiles { .planned(self) }

  package func index(of name: TensorName) -> Int? { positions[name] }
  package func location(of index: Int) -> (file: String, offset: Int) {
    source.weights[index].source.positions.first.map(base.location) ?? ("", 0)
  }
  package func place(of index: Int) throws(Failure) -> (file: InputFile, offset: Int)? {
    guard let origin = source.origin(of: index) else { return nil }
    return try base.place(of: origin)
  }
  package func typeName(of index: Int) -> String { tensors[index].type.name }
  package func storedByteCount(of index: Int) -> Int { source.storedByteCount(of: index) }
  package func read(_ index: Int, at offset: Int, into destination: inout MutableRawSpan) throws(Failure) {
    try source.read(index, at: offset, into: &destination)
  }
}
