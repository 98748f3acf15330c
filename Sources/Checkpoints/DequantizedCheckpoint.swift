import Bytes
import JSON
import ModelFamilies
import PackedWeights
import Tensors

/// A quantized checkpoint as the Hugging Face model that it was made from: names and shapes are those of transformers,
/// and weights read as the values that they stand for.
struct DequantizedCheckpoint: WrappingCheckpoint {
  package let base: any StoredCheckpoint
  /// `config.json` without the settings of the method.
  let config: JSONValue
  private let packed: PackedTensors
  private let planned: PlannedSource
  private let positions: [TensorName: Int]

  /// - Returns: nil where no weight is packed in a way that is known here.
  /// - Throws: `unsupported` for a class or a format that is not known here.
  init?(_ base: any StoredCheckpoint, config: JSONValue?) throws(Failure) {
    guard let config, let packed = try PackedTensors(base, config: config) else { return nil }
    let values = DequantizedSource(packed.logical)
    let weights: [PlannedWeight]
    do throws(Failure) {
      weights = try packed.layout.originals(of: values.tensors, config: config)
    } catch { throw Self.located(error, in: base) }
    planned = try PlannedSource(values, weights)
    var positions: [TensorName: Int] = [:]
    for (index, info) in planned.tensors.enumerated() {
      if positions.updateValue(index, forKey: info.name) != nil {
        throw Failure(
          .malformed, "and another tensor of \(packed.layout.name) are one in transformers", file: base.path,
          tensor: info.name.string)
      }
    }
    self.base = base
    self.config = packed.layout.original(config)
    self.packed = packed
    self.positions = positions
  }

  private var logical: LogicalTensors { packed.logical }

  /// Files of the directory that speak of the method, and are not the model's.
  var settingsFiles: [String] { packed.layout.settingsFiles }

  private static func located(_ failure: Failure, in base: any StoredCheckpoint) -> Failure {
    let file = failure.tensor.flatMap { base.index(of: TensorName($0)) }.map { base.location(of: $0).file }
    return failure.located(file: file)
  }

  private func item(_ index: Int) -> LogicalTensor? {
    planned.weights[index].source.positions.first.map { logical.items[$0] }
  }

  var tensors: [TensorInfo] { planned.tensors }
  package var dequantizes: String? { packed.layout.name }
  var warnings: [Warning] {
    let left = packed.leftOut.map(\.string)
    if left.isEmpty { return base.warnings }
    return base.warnings + ["left out, scales that only computing in few bits has use for: \(names: left)"]
  }

  func index(of name: TensorName) -> Int? { positions[name] }

  func location(of index: Int) -> (file: String, offset: Int) {
    item(index).map { base.location(of: $0.payload) } ?? ("", 0)
  }

  func place(of index: Int) throws(Failure) -> (file: InputFile, offset: Int)? {
    guard let origin = planned.origin(of: index), case .plain(let stored) = logical.items[origin] else { return nil }
    return try base.place(of: stored)
  }

  /// The type that the tensor is stored in.
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
