import Architectures
import Bytes
import JSON
import ModelFamilies
import Tensors

/// A directory in MLX's groups as the Hugging Face model that it was made from: names and shapes are those of
/// transformers, and weights read as the values that they stand for.
///
/// Classes without a row in `MLXFamily` are not known here: `sanitize` of mlx-lm may have changed values under names
/// that stayed, as it adds 1 to the norms of Qwen3-Next, so that names and shapes do not tell that nothing is to be
/// undone. They are refused.
struct MLXCheckpoint: StoredCheckpoint {
  let base: any StoredCheckpoint
  /// `config.json` without the groups.
  let config: JSONValue
  private let logical: LogicalTensors
  private let planned: PlannedSource
  private let positions: [TensorName: Int]

  /// - Returns: nil where no weight is in groups.
  /// - Throws: `unsupported` for a class or a format that is not known here.
  init?(_ base: any StoredCheckpoint, config: JSONValue?) throws(Failure) {
    guard var config, let logical = try LogicalTensors(mlx: base, config: config) else { return nil }
    let values = DequantizedSource(logical)
    let weights: [PlannedWeight]
    do throws(Failure) {
      let family = try MLXFamily(of: ModelConfiguration(config))
      weights = try family.originals(of: values.tensors, config: config)
    } catch { throw Self.located(error, in: base) }
    planned = try PlannedSource(values, weights)
    var positions: [TensorName: Int] = [:]
    for (index, info) in planned.tensors.enumerated() {
      if positions.updateValue(index, forKey: info.name) != nil {
        throw Failure(
          .malformed, "and another tensor of MLX are one in transformers", file: base.path, tensor: info.name.string)
      }
    }
    for key in ["quantization", "quantization_config"] { config[key] = nil }
    self.base = base
    self.config = config
    self.logical = logical
    self.positions = positions
  }

  private static func located(_ failure: Failure, in base: any StoredCheckpoint) -> Failure {
    let file = failure.tensor.flatMap { base.index(of: TensorName($0)) }.map { base.location(of: $0).file }
    return failure.located(file: file)
  }

  private func item(_ index: Int) -> LogicalTensor? {
    planned.weights[index].source.positions.first.map { logical.items[$0] }
  }

  var tensors: [TensorInfo] { planned.tensors }
  var files: CheckpointFiles { base.files }
  package var dequantizes: String? { "MLX" }
  var container: String { base.container }
  var path: String { base.path }
  var directory: InputDirectory? { base.directory }
  var fileNames: [String] { base.fileNames }
  var warnings: [Warning] { base.warnings }
  var identities: [FileIdentity] { base.identities }

  func index(of name: TensorName) -> Int? { positions[name] }
  func metadata(isWhole: Bool) throws(Failure) -> [MetadataEntry] { try base.metadata(isWhole: isWhole) }
  func checkUnchanged() throws(Failure) { try base.checkUnchanged() }

  func location(of index: Int) -> (file: String, offset: Int) {
    item(index).map { base.location(of: $0.payload) } ?? ("", 0)
  }

  func place(of index: Int) throws(Failure) -> (file: InputFile, offset: Int)? {
    guard let origin = planned.origin(of: index), case .plain(let stored) = logical.items[origin] else { return nil }
    return try base.place(of: stored)
  }

  /// The type that MLX stores the tensor in.
  func typeName(of index: Int) -> String {
    switch item(index) {
    case .packed(let weight): weight.typeName
    case .plain(let stored): base.typeName(of: stored)
    case nil: tensors[index].type.name
    }
  }

  /// Bytes of the tensor in its file; for an expert of a stack, its part of the stack's bytes.
  func storedByteCount(of index: Int) -> Int { planned.storedByteCount(of: index) }

  func read(_ index: Int, at offset: Int, into destination: inout MutableRawSpan) throws(Failure) {
    try planned.read(index, at: offset, into: &destination)
  }
}
