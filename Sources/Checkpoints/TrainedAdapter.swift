import Adapters
import Bytes
import JSON
import Tensors

/// The adapter in what a run has saved that trained one: under the names that PEFT gives it, without the base.
struct TrainedAdapter: WrappingCheckpoint {
  let base: any StoredCheckpoint
  let tensors: [TensorInfo]
  let warnings: [Warning]
  /// For each of `tensors` its position in the base.
  private let kept: [Int]
  private let positions: [TensorName: Int]

  /// Nil for a run that trained no adapter.
  ///
  /// - Throws: `missing` without a configuration of PEFT; `unsupported` for several adapters, and for one that trained
  ///   parameters of the base too.
  init?(_ base: any StoredCheckpoint) throws(Failure) {
    let names = base.tensors.map { TrainedName.isWrapped($0.name.string) ? TrainedName($0.name.string) : nil }
    guard let first = names.compactMap(\.self).first else { return nil }
    if let other = names.compactMap(\.self).first(where: { $0.adapter != first.adapter }) {
      throw Failure(
        .unsupported,
        "holds several adapters, '\(first.adapter.printable(limit: 128))' and "
          + "'\(other.adapter.printable(limit: 128))': save the one that is meant with PEFT", file: base.path)
    }
    guard let directory = base.directory, directory.contains(Adapter.configName) else {
      throw Failure(.missing, "is of a run that trained an adapter, and has no \(Adapter.configName)", file: base.path)
    }
    let bytes = try directory.open(Adapter.configName).contents(limit: StoredModel.configLimit)
    let biases = try JSONValue(parsing: bytes, .python, file: Adapter.configName)["bias"]?.string ?? "none"
    guard biases == "none" else {
      throw Failure(
        .unsupported,
        "has trained biases of the base ('\(biases.printable(limit: 64))'), which are not told from others",
        file: Adapter.configName)
    }
    kept = names.indices.filter { names[$0] != nil }
    var tensors: [TensorInfo] = []
    var positions: [TensorName: Int] = [:]
    for index in kept {
      let name = TensorName(names[index]?.saved ?? "")
      let info = base.tensors[index]
      guard positions.updateValue(tensors.count, forKey: name) == nil else {
        throw Failure(.malformed, "is '\(name)' as another is", file: base.path, tensor: info.name.string)
      }
      tensors.append(try TensorInfo(name: name, type: info.type, shape: info.shape))
    }
    self.base = base
    self.tensors = tensors
    self.positions = positions
    let left = base.tensors.indices.filter { names[$0] == nil }.map { base.tensors[$0].name.string }
    warnings = base.warnings + (left.isEmpty ? [] : ["left out, which is not of the adapter: \(names: left)"])
  }

  func index(of name: TensorName) -> Int? { positions[name] }
  func location(of index: Int) -> (file: String, offset: Int) { base.location(of: kept[index]) }
  func place(of index: Int) throws(Failure) -> (file: InputFile, offset: Int)? { try base.place(of: kept[index]) }
  func typeName(of index: Int) -> String { base.typeName(of: kept[index]) }
  func storedByteCount(of index: Int) -> Int { base.storedByteCount(of: kept[index]) }
  func read(_ index: Int, at offset: Int, into destination: inout MutableRawSpan) throws(Failure) {
    try base.read(kept[index], at: offset, into: &destination)
  }
}
